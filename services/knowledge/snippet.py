"""The piece of a passage that a reader is shown first, and the words in it that were searched for.

Candidates begin at a sentence, or in a long sentence some words before a match, and go on for as many whole sentences
as there is room for. Best is the one with most of the words searched for, each counted once by what it is worth; of
like ones that with most matches, then the last: it begins with the sentence that they stand in. A passage that was
found for its meaning alone is shown from its beginning.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.knowledge.cuts import cut_after, sentence_begins, whole
from services.knowledge.matching import Match, Wanted

MOST = 300
_BEFORE_MATCH = 100
_ENOUGH = 150
"""Characters. A shorter one is chosen only where the words are nowhere else."""


@dataclass(frozen=True)
class Snippet:
    """A piece of a text as it stands there. `highlights`: begin and end of words in it, in code points."""

    text: str
    highlights: tuple[tuple[int, int], ...] = ()


NO_SNIPPET = Snippet("")


def snippet(text: str, wanted: Wanted) -> Snippet:
    """At most MOST characters of the text."""
    matches = wanted.matches(text)
    begin, end = _best(text, matches, wanted.worths)
    inside = ((match.begin - begin, match.end - begin) for match in matches if begin <= match.begin < match.end <= end)
    return Snippet(text[begin:end], tuple(inside))


def _best(text: str, matches: Sequence[Match], worths: Sequence[float]) -> tuple[int, int]:
    if len(text) <= MOST:
        return 0, len(text)
    begins = sentence_begins(text)
    if not matches:
        return 0, cut_after(text, begins, 0, MOST)
    first, last = [match.begin for match in matches], [match.end for match in matches]

    def value(piece: tuple[int, int]) -> tuple[float, int, int, int]:
        begin, end = piece
        inside = matches[bisect_left(first, begin) : bisect_right(last, end)]
        worth = sum(worths[word] for word in {match.word for match in inside})
        return worth, len(inside), min(end - begin, _ENOUGH), begin

    return max(_pieces(text, begins, matches), key=value)


def _pieces(text: str, begins: Sequence[int], matches: Sequence[Match]) -> Iterator[tuple[int, int]]:
    for place in begins:
        yield place, cut_after(text, begins, place, MOST)
    for match in matches:
        sentence = begins[bisect_right(begins, match.begin) - 1]
        if match.begin - sentence > _BEFORE_MATCH:
            before = match.begin - _BEFORE_MATCH
            space = text.find(" ", before, match.begin)
            place = whole(text, space + 1 if space >= 0 else before)
            yield place, cut_after(text, begins, place, MOST)
