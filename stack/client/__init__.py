"""The commands for users of a mesh: sign in, put documents in, ask. They call the edge through the generated SDK."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of a local mesh. Default: $PARLEY_DATA_DIR, else .parley beside the code."),
]
EdgeUrl = Annotated[
    str | None, typer.Option("--edge", envvar="PARLEY_EDGE", help="Address of a mesh elsewhere: https://...")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `parley` command line."""
    for command in (login, logout, token, ingest, ask):
        app.command()(command)


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
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Documents.")],
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Put documents in: done when their passages can be found."""
    from stack.client import ingesting

    _run(ingesting.ingest(_edge(data_dir, edge), files))


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    model: Annotated[str | None, typer.Option(help="One of the models that the mesh offers.")] = None,
    data_dir: DataDir = None,
    edge: EdgeUrl = None,
) -> None:
    """Ask a question: the words come as they are made, then the sources."""
    from stack.client import asking

    _run(asking.ask(_edge(data_dir, edge), question, conversation, model))


def _edge(data_dir: Path | None, url: str | None) -> Any:
    from stack.client.edge import find_edge

    return find_edge(data_dir, url)


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command; its result is the exit status."""
    from stack.client.edge import refusals_explained

    with refusals_explained():
        raise typer.Exit(asyncio.run(work))
