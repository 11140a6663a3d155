"""Found passages that follow each other in their document, put together: one result that reads on.

It stands where the better of both stood, under that one's id; page and headings are those where it begins. Two
neighbours that are too long together keep the better one whole, and of the other the sentences next to it; a third
one is taken in only whole. What would not have been shown by itself is not drawn in.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
        same = self.best.document_id == other.best.document_id
        return same and before[-1].position + 1 == after[0].position

    def has_room_for(self, other: "_Run[Found]") -> bool:
        parts = (*self.parts, *other.parts)
        length = sum(len(part.text) + len(_JOINT) for part in parts) - len(_JOINT)
        return length <= MOST or (len(parts) == 2 and MOST - len(self.best.passage.text) > _LEAST)

    def with_(self, other: "_Run[Found]") -> "_Run[Found]":
        return replace(self, parts=tuple(sorted((*self.parts, *other.parts), key=lambda part: part.position)))

    @property
    def passage(self) -> Passage:
        """All of it as one."""
        return replace(self.parts[0], text=_JOINT.join(self._texts()))

    def _texts(self) -> Iterator[str]:
        room = MOST - len(self.best.passage.text) - len(_JOINT)
        for place, part in enumerate(self.parts):
            if len(self.parts) != 2 or part.position == self.best.passage.position:
                yield part.text
            elif place == 0:
                yield part.text[cut_before(part.text, sentence_begins(part.text), room) :]
            else:
                yield part.text[: cut_after(part.text, sentence_begins(part.text), 0, room)]


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
