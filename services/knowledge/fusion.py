"""One order out of two: the passages near a question's vector and those that share its terms.

Scores are fused, not ranks: where the embedding model knows nothing of a language its ranks are noise, and reciprocal
rank fusion gives that noise half of the say. The lexical score is taken relative to its best, the cosine as it is. What
only the lexical side found counts as near as the last that the dense side found; it is no nearer, or it would be there.

How much the lexical side has to say follows how well the embedding model knows the script and language of the question.
The weights are measured (docs/retrieval.md); another model needs others.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from services.knowledge.terms import is_english

ENGLISH, LATIN, OTHER = 0.3, 0.6, 0.9
"""The weight of the lexical side for questions in English, in other languages in Latin letters, in other scripts."""
_LAST_LATIN_LETTER = "\u024f"


def lexical_weight(question: str) -> float:
    """Between ENGLISH and OTHER, by the letters of the question."""
    letters = [letter for letter in question if letter.isalpha()]
    if not letters:
        return ENGLISH
    latin = sum(letter <= _LAST_LATIN_LETTER for letter in letters) / len(letters)
    return latin * (ENGLISH if is_english(question) else LATIN) + (1 - latin) * OTHER


def fused(near: Mapping[UUID, float], sharing: Mapping[UUID, float], weight: float) -> Sequence[UUID]:
    """Ids best first, given the cosines and the lexical scores of what each side found."""
    best = max(sharing.values(), default=0.0) or 1.0
    farthest = min(near.values(), default=0.0)

    def score(found: UUID) -> float:
        return weight * sharing.get(found, 0.0) / best + (1 - weight) * near.get(found, farthest)

    return sorted({**near, **sharing}, key=score, reverse=True)
