"""Markdown (CommonMark with tables), by markdown-it."""

import re
from collections.abc import Iterator
from itertools import islice

from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.knowledge.extract import html
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.passages import Block

_MAX_CHARACTERS = 4_000_000  # beyond, parsing takes many seconds: such files are read as plain text
_CERTAIN = re.compile(r"^ {0,3}(#{1,6} +\S|```|~~~|\|?[ :]*-{3,}[ :]*\|)|^\S.*\n=+ *$", re.MULTILINE)
# Bounded, so that a heap of brackets takes no time.
_LIKELY = re.compile(
    r"^ {0,3}([-*+]|>) +\S|\[[^\[\]\n]{1,300}\]\([^)\s]+\)|\*\*[^*\n]{1,300}\*\*|`[^`\n]{1,300}`", re.MULTILINE
)
_HEAP = re.compile(r"[\[\]()<>*_`!~]{500}")  # takes the parser minutes, and nobody writes so
_PICTURE = re.compile(r"\(data:[^)\s]{300,}\)")
_LIKELY_ENOUGH = 3


def looks_like(text: str) -> bool:
    """Whether a text has enough of Markdown's marks to be read as such."""
    if len(text) > _MAX_CHARACTERS or _HEAP.search(text):
        return False
    likely = sum(1 for _ in islice(_LIKELY.finditer(text), _LIKELY_ENOUGH))
    return likely == _LIKELY_ENOUGH or _CERTAIN.search(text) is not None


def read(text: str) -> Read:
    """The blocks of a Markdown text; raw HTML in it is read as HTML."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(_PICTURE.sub("()", text))
    return Read("text/markdown", _blocks(tokens))


def _blocks(tokens: list[Token]) -> Iterator[Block]:
    sections = Sections()
    heading_level = 0
    row: list[str] | None = None
    for token in tokens:
        match token.type:
            case "heading_open":
                heading_level = int(token.tag[1:])
            case "heading_close":
                heading_level = 0
            case "tr_open":
                row = []
            case "tr_close":
                yield from sections.text(" | ".join(row or ()))
                row = None
            case "inline" if heading_level:
                yield from sections.heading(heading_level, _inline(token))
            case "inline" if row is not None:
                row.append(_inline(token))
            case "inline":
                yield from sections.text(_inline(token))
            case "fence" | "code_block":
                yield from sections.text(token.content)
            case "html_block":
                for block in html.read(token.content).blocks:
                    yield from sections.text(block.text)
    yield from sections.end()


def _inline(token: Token) -> str:
    return "".join(map(_shown, token.children or ()))


def _shown(token: Token) -> str:
    match token.type:
        case "text" | "code_inline" | "image":
            return token.content
        case "softbreak" | "hardbreak":
            return "\n"
        case _:
            return ""
