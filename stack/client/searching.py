"""`parley search`: prints the passages that fit best, with where they stand."""

import json
import textwrap

from parley_sdk.parley.knowledge.v1 import KnowledgeServiceStub, Passage, SearchRequest
from stack.client.account import signed_in
from stack.client.asking import printable
from stack.client.edge import CALL_TIMEOUT_S, Edge, console, errors

_TEXT_CHARACTERS = 300
_INDENT = "    "


async def search(edge: Edge, query: str, limit: int, *, as_json: bool) -> int:
    """Print at most `limit` passages, best first; as JSON whole, by the names of the contract."""
    async with signed_in(edge) as (channel, metadata):
        request = SearchRequest(query=query, limit=limit)
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
    text = textwrap.shorten(printable(passage.text), _TEXT_CHARACTERS, placeholder=" …")
    print(textwrap.fill(text, console.width, initial_indent=_INDENT, subsequent_indent=_INDENT))
