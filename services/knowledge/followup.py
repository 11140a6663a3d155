"""What a follow-up question leaves open, taken from what was said before it.

"And in Berlin?" names neither what is asked about nor much of anything. So its vector leans a little towards those of
the messages before, and its terms are joined by theirs, at a fraction of their weight, the less the older they are.
The question stays the larger part: one that stands on its own is found as if nothing had been said (docs/retrieval.md
has both, measured).

Knobs. LEANING: how far the vector leans towards the last message. SHARE: what its terms weigh. FADING: what is left
of both for each message that came after it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter

from services.knowledge.lexical import Rarity, SparseVector
from services.knowledge.text import seen

LEANING = 0.2
SHARE = 0.15
FADING = 0.5
MOST_TERMS = 100
"""Of the messages before; each costs the index time, and a message may be as long as a page."""


@dataclass(frozen=True)
class Question:
    """As it can be seen, with what was said before, newest first."""

    text: str
    before: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """With the message before it, as one text."""
        return "\n".join((*reversed(self.before[:1]), self.text))

    @property
    def texts(self) -> Sequence[str]:
        """What is embedded for `direction`."""
        return [self.text, *self.before]

    def direction(self, vectors: Sequence[Sequence[float]]) -> Sequence[float]:
        """Of length 1, given the vectors of `texts`."""
        if len(vectors) == 1:
            return vectors[0]
        weights = [1.0, *(LEANING * FADING**age for age in range(len(vectors) - 1))]
        summed = [math.fsum(map(float.__mul__, weights, column)) for column in zip(*vectors, strict=True)]
        length = math.hypot(*summed) or 1.0
        return [value / length for value in summed]

    def terms(self, rarity: Rarity) -> SparseVector:
        """What each term is worth; empty where none tells passages apart."""
        own, others = rarity.question_vector(self.text), dict[int, float]()
        for age, text in enumerate(self.before):
            for term, worth in rarity.question_vector(text).items():
                others[term] = max(others.get(term, 0.0), worth * SHARE * FADING**age)
        return {**dict(nlargest(MOST_TERMS, others.items(), key=itemgetter(1))), **own}


def question(text: str, history: Sequence[str] = ()) -> Question:
    """Of a text and what was said before it, newest last."""
    return Question(seen(text), tuple(filter(None, map(seen, reversed(history)))))
