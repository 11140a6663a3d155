"""Found passages that follow each other on a page of their document, put together: one result that reads on.

Over the end of a page they stay apart, because a citation names the page that its words stand on. A result stands where
the better of both stood, under that one's id; its headings are those where it begins, and a heading that comes later
stands in its text, as in passages of short sections (passages.py). Two neighbours that are too long together keep the
better one whole, and of the other the sentences next to it; a third one is taken in only whole. What would not have
been shown by itself is not drawn in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, TypeVar

from services.knowledge.cuts import cut_after, cut_before, sentence_begins
from services.knowledge.passages import Passage
from services.knowledge.variety import Sourced

MOST = 2000
"""Characters of a result: what the contract promises."""
_LEAST = 200
"""Of a neighbour that is cut."""
_JOINT = "\n"

Found = TypeVar("Found", bound=Sourced)


@dataclass(frozen=True)
class _Run(Generic[Found]):
    """Passages of one document without a gap, in reading order; `best` is that of them which was found first."""

    best: Found
    parts: tuple[Passage, ...]

    def beside(self, other: "_Run[Found]") -> bool:
        before, after = sorted((self.parts, other.parts), key=lambda parts: parts[0].position)
        same = self.best.document_id == other.best.document_id and before[0].page == after[0].page
        return same and before[-1].position + 1 == after[0].position

    def has_room_for(self, other: "_Run[Found]") -> bool:
        both = self.with_(other)
        fits = len(_JOINT.join(both.texts)) <= MOST
        return fits or (len(both.parts) == 2 and both.room_beside_best >= _LEAST)

    def with_(self, other: "_Run[Found]") -> "_Run[Found]":
        return replace(self, parts=tuple(sorted((*self.parts, *other.parts), key=lambda part: part.position)))

    @property
    def passage(self) -> Passage:
        """All of it as one."""
        texts = self.texts
        if len(texts) == 2 and len(_JOINT.join(texts)) > MOST:
            first, second = texts
            if self.parts[0].position == self.best.passage.position:
                second = second[: cut_after(second, sentence_begins(second), 0, self.room_beside_best)]
            else:
                first = first[cut_before(first, sentence_begins(first), self.room_beside_best) :]
            texts = [first, second]
        return replace(self.parts[0], text=_JOINT.join(texts))

    @property
    def room_beside_best(self) -> int:
        """Characters for the other one of two."""
        return MOST - len(_JOINT) - len(self.texts[self.parts.index(self.best.passage)])

    @property
    def texts(self) -> Sequence[str]:
        """Of the parts, below the headings that come after the beginning."""
        return [self.parts[0].text, *(_below_heading(*pair) for pair in pairwise(self.parts))]


def joined(found: Iterable[Found], limit: int) -> Sequence[tuple[Found, Passage]]:
    """At most `limit` results of what was found, best first: the best passage of each, and all of it as one."""
    runs: list[_Run[Found]] = []
    for candidate in found:
        if len(runs) == limit:
            break
        run = _Run(candidate, (candidate.passage,))
        if not _taken_in(runs, run):
            runs.append(run)
    return [(run.best, run.passage) for run in runs]


def _taken_in(runs: list[_Run[Found]], run: _Run[Found]) -> bool:
    """Whether a run before it has taken it in; it may close the gap between two."""
    home: int | None = None
    for place, other in enumerate(runs):
        whole = run if home is None else runs[home]
        if other.beside(whole) and other.has_room_for(whole):
            if home is None:
                home, runs[place] = place, other.with_(run)
            else:
                runs[home] = whole.with_(other)
                del runs[place]
                break
    return home is not None


def _below_heading(before: Passage, part: Passage) -> str:
    is_new = part.headings and part.headings != before.headings
    return f"{part.headings[-1]}{_JOINT}{part.text}" if is_new else part.text
