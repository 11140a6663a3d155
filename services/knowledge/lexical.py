"""The lexical side of search: sparse vectors of terms whose inner product is BM25.

A passage's vector holds how much each of its terms says about it, a question's how much each of its terms is worth: its
rarity among the passages of the organisation. So a score depends on nothing but the two texts and the organisation:
neither on how the index is cut into segments nor on other organisations' passages, and an index that is told nothing
of rarity can make it.

Knobs. SATURATION: how soon more of the same term says no more. LENGTH_PART: how much of that a longer passage takes
back; passages are cut to like sizes, so little. COMMON: terms in more than this share of the passages are not asked
for; they cost most of the time of a search and changed no result (docs/retrieval.md).
"""

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.knowledge.terms import question_terms, terms

SATURATION = 0.9
LENGTH_PART = 0.3
TYPICAL_CHARACTERS = 800
COMMON = 0.25
_HIGHEST_DIMENSION = 2**32 - 2
NO_TERM = 0
"""The dimension of passages without any term, which no question asks for: the index takes no empty vector."""

SparseVector = Mapping[int, float]


def passage_vector(text: str) -> SparseVector:
    """Never empty."""
    slowness = SATURATION * (1 - LENGTH_PART + LENGTH_PART * len(text) / TYPICAL_CHARACTERS)
    vector = {dimension(term): count * (SATURATION + 1) / (count + slowness) for term, count in terms(text).items()}
    return vector or {NO_TERM: 1.0}


@dataclass(frozen=True)
class Rarity:
    """In how many of some passages each term stands, by dimension."""

    passages: int = 0
    containing: Mapping[int, int] = field(default_factory=dict)

    def question_vector(self, text: str) -> SparseVector:
        """Empty for a text without a term that tells passages apart."""
        vector: dict[int, float] = {}
        for term, weight in question_terms(text).items():
            if worth := self.worth(key := dimension(term)):
                vector[key] = weight * worth
        return vector

    def worth(self, key: int) -> float:
        """What a term, by its dimension, is worth in telling passages apart; 0 for one that most of them have."""
        containing = self.containing.get(key, 0)
        if self.passages * COMMON >= 1 and containing > self.passages * COMMON:
            return 0.0
        return math.log(1 + (self.passages - containing + 0.5) / (containing + 0.5))


def rarity(texts: Iterable[str]) -> Rarity:
    """Of the terms of these passages. Terms of a single one are left out: they weigh like those of none."""
    passages, containing = 0, Counter[int]()
    for text in texts:
        passages += 1
        containing.update(dimension(term) for term in terms(text))
    return Rarity(passages, {key: count for key, count in containing.items() if count > 1})


def dimension(term: str) -> int:
    """Two of a million terms share one now and then, which no score shows."""
    return 1 + zlib.crc32(term.encode()) % _HIGHEST_DIMENSION
