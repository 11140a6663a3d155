"""The commands for users of a mesh: sign in, put documents in, ask. They call the edge through the generated SDK."""

import asyncio
import re
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of a local mesh. Default: $PARLEY_DATA_DIR, else .parley beside the code."),
]
EdgeUrl = Annotated[
    str | None, typer.Option("--edge", envvar="PARLEY_EDGE", help="Address of a mesh elsewhere: https://...")
]
DocumentIds = Annotated[list[str] | None, typer.Option(metavar="ID", help="This document; may be repeated.")]
Conversation = Annotated[str | None, typer.Option(help="This one. Default: a new one to ask in, the last one else.")]


class Verdict(StrEnum):
    """What a person thinks of an answer."""

    GOOD = "good"
    BAD = "bad"
    NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `parley` command line."""
    for command in (login, logout, token, ingest, documents, search, ask, rate):
        app.command()(command)
    faqs = typer.Typer(help="Your organisation's own answers: they go before what the documents say.")
    faqs.command("add")(faq_add)
    faqs.command("list")(faq_list)
    faqs.command("delete")(faq_delete)
    faqs.command("import")(faq_import)
    app.add_typer(faqs, name="faq", no_args_is_help=True)


def login(
    email: Annotated[str, typer.Option(prompt="E-mail", help="Address of the account.")],
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, help="Asked for when not given.")],
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Sign in and stay signed in."""
    from stack.client import account

    _run(account.login(_edge(data_dir, edge), email, password))


def logout(data_dir: DataDir = None, edge: EdgeUrl = None) -> None:
    """End the session of `parley login`."""
    from stack.client import account

    _run(account.logout(_edge(data_dir, edge)))


def token(data_dir: DataDir = None, edge: EdgeUrl = None) -> None:
    """Print an access token for other clients; it works for minutes."""
    from stack.client import account

    _run(account.print_token(_edge(data_dir, edge)))


def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="PATH|URL...", help="Files; folders with all in them; addresses of sites to read."),
    ],
    collection: Annotated[str, typer.Option(help="The collection to put them in.")] = "",
    private: Annotated[bool, typer.Option("--private", help="For you alone.")] = False,
    depth: Annotated[int | None, typer.Option(min=0, max=10, help="Of a site: links from its start.")] = None,
    pages: Annotated[int, typer.Option(min=0, max=10_000, help="Of a site: at most so many; 0 leaves it open.")] = 0,
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Put documents in, or the pages of a site: done when their passages can be found."""
    from stack.client import crawling, ingesting
    from stack.client.uploading import Place

    sites = [source for source in sources if re.match(r"https?://", source, re.IGNORECASE)]
    paths = [Path(source) for source in sources if source not in sites]

    async def all_of_them() -> int:
        where, status = _edge(data_dir, edge), 0
        if paths:
            status = await ingesting.ingest(where, paths, Place(collection, private))
        for url in sites:
            status |= await crawling.crawl(where, crawling.Site(url, collection, private, depth, pages))
        return status

    _run(all_of_them())


def documents(
    collection: Annotated[str | None, typer.Option(help="Only those of this collection.")] = None,
    delete: DocumentIds = None,
    share: DocumentIds = None,
    unshare: DocumentIds = None,
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """List the documents that you see, newest first; or delete, share or unshare some by their ids."""
    from stack.client import listing

    where = _edge(data_dir, edge)
    if delete or share or unshare:
        _run(listing.change(where, delete or (), share or (), unshare or ()))
    _run(listing.show(where, collection))


def search(
    query: Annotated[str, typer.Argument(help="A question or words.")],
    limit: Annotated[int, typer.Option(min=1, max=20, help="How many passages at most.")] = 5,
    collection: Annotated[str | None, typer.Option(help="Only in this collection; '' for what is in none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs, with the whole text.")] = False,
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Search in the documents that you see: the passages that fit best, with where they stand."""
    from stack.client import searching

    _run(searching.search(_edge(data_dir, edge), query, limit, collection, as_json=as_json))


def faq_add(
    question: Annotated[str, typer.Argument(help="The question.")],
    answer: Annotated[str, typer.Argument(help="Your organisation's answer.")],
    also: Annotated[list[str] | None, typer.Option(metavar="QUESTION", help="Another way to ask it.")] = None,
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Add a question with its answer."""
    from stack.client import curating

    _run(curating.add(_edge(data_dir, edge), question, also or (), answer))


def faq_list(data_dir: DataDir = None, edge: EdgeUrl = None) -> None:
    """List the questions, newest first."""
    from stack.client import curating

    _run(curating.show(_edge(data_dir, edge)))


def faq_delete(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `parley faq list` shows them.")],
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Delete questions."""
    from stack.client import curating

    _run(curating.delete(_edge(data_dir, edge), ids))


def faq_import(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A CSV with columns question and answer.")
    ],
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Add every row of a file; questions that are there already stay as they are."""
    from stack.client import curating

    _run(curating.import_csv(_edge(data_dir, edge), file))


def ask(
    question: Annotated[str | None, typer.Argument(help="What you want to know.")] = None,
    conversation: Conversation = None,
    again: Annotated[
        bool, typer.Option("--again", help="In the place of the last question; without a new one, that one again.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="One of the models that the mesh offers.")] = None,
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Ask a question: the words come as they are made, then the sources. Ctrl-C stops the answer."""
    from stack.client import asking

    if again:
        _run(asking.ask_again(_edge(data_dir, edge), question, conversation, model))
    if question is None:
        raise typer.BadParameter("What do you want to know? Or --again.")
    _run(asking.ask(_edge(data_dir, edge), question, conversation, model))


def rate(
    verdict: Annotated[Verdict, typer.Argument(help="What the last answer was worth; none takes it back.")],
    reason: Annotated[str, typer.Argument(help="Why.")] = "",
    conversation: Conversation = None,
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Say what the last answer was worth."""
    from stack.client import rating

    _run(rating.rate(_edge(data_dir, edge), verdict, reason, conversation))


def _edge(data_dir: Path | None, url: str | None) -> Any:
    from stack.client.edge import find_edge

    return find_edge(data_dir, url)


def _run(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command; its result is the exit status."""
    from stack.client.edge import refusals_explained

    with refusals_explained():
        raise typer.Exit(asyncio.run(work))
