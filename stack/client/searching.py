"""`parley search`: prints the passages that fit best, with where they stand."""

import json

from rich.padding import Padding
from rich.text import Text

from parley_sdk.parley.knowledge.v1 import KnowledgeServiceStub, Passage, SearchRequest
from stack.client.account import signed_in
from stack.client.asking import printable
from stack.client.edge import CALL_TIMEOUT_S, Edge, console, errors

_INDENT = 4


async def search(edge: Edge, query: str, limit: int, collection: str | None, *, as_json: bool) -> int:
    """Print at most `limit` passages, best first, of this collection alone if one is given ("": of none).

    As JSON whole, by the names of the contract.
    """
    async with signed_in(edge) as (channel, metadata):
        collections = [] if collection is None else [collection]
        request = SearchRequest(query=query, limit=limit, collections=collections)
        found = await KnowledgeServiceStub(channel, metadata=metadata).search(request, timeout=CALL_TIMEOUT_S)
    if as_json:
        print(json.dumps([passage.to_dict() for passage in found.passages], ensure_ascii=False, indent=1))
    elif not found.passages:
        errors.print("No passage fits.", highlight=False)
    for number, passage in enumerate(found.passages if not as_json else [], start=1):
        _print(number, passage)
    return 0


def _print(number: int, passage: Passage) -> None:
    page = f", page {passage.page}" if passage.page else ""
    headings = f" ({' > '.join(passage.headings)})" if passage.headings else ""
    console.print(
        printable(f"[{number}] {'FAQ: ' if passage.faq_id else ''}{passage.filename}{page}{headings}"),
        style="bold",
        highlight=False,
        markup=False,
    )
    console.print(Padding(_snippet(passage), (0, 0, 0, _INDENT)))


def _snippet(passage: Passage) -> Text:
    """With what was searched for in bold."""
    shown, place = Text(), 0
    for highlight in passage.highlights:
        shown.append(_on_one_line(passage.snippet[place : highlight.begin]))
        shown.append(_on_one_line(passage.snippet[highlight.begin : highlight.end]), style="bold")
        place = highlight.end
    return shown.append(_on_one_line(passage.snippet[place:]))


def _on_one_line(text: str) -> str:
    return printable(text).replace("\n", " ").replace("\t", " ")
