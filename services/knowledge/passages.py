"""Cutting a document into passages: what is embedded, found and cited.

A document comes as blocks (paragraphs, list items, table rows) in reading order, each with the headings above it. The
cutter fills a passage with whole blocks. A block that does not fit is cut into sentences, a sentence that does not fit
at a space, a word that does not fit anywhere. A passage ends

- at a new page, however short it is: a citation names the page that its words stand on,
- before a piece that would take it beyond MOST characters,
- at the end of a block once it has ENOUGH characters,
- at a new heading once it has LEAST characters. Shorter sections share a passage, and the new heading stands in its
  text; else a list of short sections would become a heap of passages that say nothing alone.

Its headings and page are those of its beginning. Passages do not overlap: neighbours are found by their position.

Knobs. The default embedding model reads 256 tokens, some 1,000 characters of English: beyond MOST the end of a passage
would count only for the lexical side of search. Below ENOUGH a passage often lacks the sentence that makes the next
one understandable. Change them and index again: passages of both sizes may live side by side.

The id of a passage follows from its document and position, so that indexing again overwrites and doubles nothing.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID, uuid5

from services.knowledge.text import seen, seen_line

MOST = 1200
ENOUGH = 800
LEAST = 200
MAX_HEADINGS = 8
MAX_HEADING_CHARACTERS = 200
# After these a sentence is over: Latin, Greek and Cyrillic, CJK, Arabic and Urdu, Hindi, Ethiopic and Armenian ends.
SENTENCE_END = re.compile(r"(?<=[.!?…;])[\"'”’)\]]*\s+|(?<=[。！？｡])|(?<=[؟۔।॥።։])\s*|\n+")


@dataclass(frozen=True)
class Block:
    """A piece of a document that belongs together. `page` counts from 1; `headings` are outermost first."""

    text: str
    page: int | None = None
    headings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Passage:
    """A piece of a document's text, at most MOST characters; `position` counts from 0."""

    position: int
    text: str
    page: int | None = None
    headings: tuple[str, ...] = ()

    @property
    def searchable_text(self) -> str:
        """What is embedded and searched for words: the text below its headings."""
        return "\n".join((" > ".join(self.headings), self.text)) if self.headings else self.text


def passage_id(document_id: UUID, position: int) -> UUID:
    """The same for the same place in the same document, always."""
    return uuid5(document_id, str(position))


def cut(blocks: Iterable[Block]) -> Iterator[Passage]:
    """The passages of a document, in order; blocks without text that can be seen make none."""
    for position, draft in enumerate(_drafts(blocks)):
        yield Passage(position, draft.text.rstrip(), draft.page, draft.headings)


@dataclass(frozen=True)
class _Draft:
    """A passage that is being filled; it begins in `page` under `headings`."""

    text: str
    page: int | None
    headings: tuple[str, ...]


def _drafts(blocks: Iterable[Block]) -> Iterator[_Draft]:
    draft: _Draft | None = None
    above: tuple[str, ...] = ()  # the headings of the block before
    for block in blocks:
        if not (text := seen(block.text)):
            continue
        if draft and block.page != draft.page:
            yield draft
            draft = None
        headings = _bounded(block.headings)
        if draft and headings != above:
            if len(draft.text) >= LEAST:
                yield draft
                draft = None
            elif headings:
                draft = replace(draft, text=f"{draft.text}\n{headings[-1]}")
        above = headings
        joint = "\n"
        for piece in _pieces(text):
            if draft and len(draft.text) + len(joint) + len(piece.rstrip()) > MOST:
                yield draft
                draft = None
            draft = replace(draft, text=draft.text + joint + piece) if draft else _Draft(piece, block.page, headings)
            joint = ""
        if draft and len(draft.text) >= ENOUGH:
            yield draft
            draft = None
    if draft:
        yield draft


def _bounded(headings: Iterable[str]) -> tuple[str, ...]:
    """Headings as they can be seen, without empty ones; the outermost of too many."""
    lines = (seen_line(heading)[:MAX_HEADING_CHARACTERS] for heading in headings)
    return tuple(line for line in lines if line)[:MAX_HEADINGS]


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces of at most MOST characters, white space at their ends aside; together they are `text`."""
    if len(text) <= MOST:
        yield text
        return
    begin = 0
    for end in (*(match.end() for match in SENTENCE_END.finditer(text)), len(text)):
        while end - begin > MOST:
            middle = _word_end(text, begin)
            yield text[begin:middle]
            begin = middle
        if end > begin:
            yield text[begin:end]
            begin = end


def _word_end(text: str, begin: int) -> int:
    """Where to cut a sentence that begins at `begin` and is too long: after a space, else before a whole character."""
    if (space := text.rfind(" ", begin + MOST // 2, begin + MOST)) >= 0:
        return space + 1
    end = begin + MOST
    while unicodedata.category(text[end]).startswith("M") and end > begin + MOST // 2:
        end -= 1
    return end
