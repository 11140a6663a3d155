"""What is found, without the same twice and without one source in every place.

Held back are a passage that says what a better one says already (copies of a document, forms, boilerplate), and what
one document has beyond half of the places. Held back means last: where nothing else was found they are shown, the
document's own passages before copies.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar
from uuid import UUID

from services.knowledge.passages import Passage

_SAME = 0.9
"""The share of two passages' words that makes them the same."""
_CHARACTERS_PER_WORD = 20
"""With fewer spaces than that a text is compared by pairs of letters."""


class Sourced(Protocol):
    @property
    def document_id(self) -> UUID: ...

    @property
    def passage(self) -> Passage: ...


Found = TypeVar("Found", bound=Sourced)


def varied(found: Iterable[Found], limit: int) -> Iterator[Found]:
    """What was found, best first, with what is held back last, for `limit` places."""
    flood: list[Found] = []
    copies: list[Found] = []
    words: list[frozenset[str]] = []
    places = Counter[UUID]()
    for candidate in found:
        own = _words(candidate.passage.text)
        if any(_same(own, other) for other in words):
            copies.append(candidate)
        elif places[candidate.document_id] >= (limit + 1) // 2:
            flood.append(candidate)
        else:
            words.append(own)
            places[candidate.document_id] += 1
            yield candidate
    yield from flood
    yield from copies


def _words(text: str) -> frozenset[str]:
    words = text.casefold().split()
    if len(words) * _CHARACTERS_PER_WORD < len(text):
        return frozenset(text[place : place + 2] for place in range(len(text)))
    return frozenset(words)


def _same(one: frozenset[str], other: frozenset[str]) -> bool:
    if min(len(one), len(other)) < _SAME * max(len(one), len(other)):
        return False
    shared = len(one & other)
    return shared >= _SAME * (len(one) + len(other) - shared)
