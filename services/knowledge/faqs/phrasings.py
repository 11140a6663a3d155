"""The phrasings of one organisation's FAQs as arrays, so that a question is compared with all of them at once.

How alike a question and a phrasing are is, as in fusion.py, a weighted sum: of the cosine of their embeddings, and of
the cosine of their terms, each term as heavy as it is rare among the FAQs. Unlike there the lexical side is absolute,
not relative to the best: a best match that is no match must show.

Rarity is smoothed with FAQs that nobody wrote (_UNWRITTEN): in a set of three no term is rare, and the one word that
tells two questions apart must weigh something there too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from services.knowledge.faqs.faq import asked
from services.knowledge.faqs.matching import Asked
from services.knowledge.lexical import dimension
from services.knowledge.search import Vector
from services.knowledge.terms import question_terms

DIMENSIONS = 384
_UNWRITTEN = 100


@dataclass(frozen=True)
class _Phrased:
    """One FAQ. `terms` are (dimensions, weights) of each phrasing; `vectors` has a row for each, zeros if unknown."""

    keys: tuple[str, ...]
    terms: tuple[tuple[np.ndarray, np.ndarray], ...]
    vectors: np.ndarray
    is_embedded: bool


class PhrasingTable:
    """Implements matching.Phrasings. Immutable; `with_changes` makes another one."""

    def __init__(self, faqs: Mapping[UUID, _Phrased] | None = None) -> None:
        self._faqs = dict(faqs or {})
        self._ids = [faq_id for faq_id, faq in self._faqs.items() for _ in faq.keys]
        # Questions last: what one FAQ asks goes before what another one also means.
        self._exact = {key: faq_id for faq_id, faq in self._faqs.items() for key in faq.keys}
        self._exact |= {faq.keys[0]: faq_id for faq_id, faq in self._faqs.items()}
        if self._faqs:
            self._arrange()

    def __len__(self) -> int:
        """How many FAQs."""
        return len(self._faqs)

    @property
    def phrasings(self) -> int:
        return len(self._ids)

    def with_changes(self, changed: Sequence[Asked]) -> "PhrasingTable":
        return PhrasingTable(self._faqs | {faq.faq_id: _phrased(faq) for faq in changed})

    def same(self, question: str) -> UUID | None:
        """The FAQ that has the question among its phrasings, letter case and punctuation at the ends aside."""
        return self._exact.get(asked(question))

    def closest(self, question: str, vector: Vector, weight: float) -> tuple[UUID, float] | None:
        """The FAQ with the phrasing that is most like the question, and how alike they are, at most 1."""
        if not self._faqs:
            return None
        lexical = np.where(self._embedded, weight, 1.0) * self._lexical(question)
        dense = np.where(self._embedded, 1.0 - weight, 0.0) * (self._vectors @ np.asarray(vector, np.float32))
        likeness = lexical + dense
        best = int(likeness.argmax())
        return self._ids[best], float(likeness[best])

    def _arrange(self) -> None:
        faqs = self._faqs.values()
        self._vectors = np.concatenate([faq.vectors for faq in faqs])
        self._embedded = np.concatenate([np.full(len(faq.keys), faq.is_embedded) for faq in faqs])
        terms = [of_phrasing for faq in faqs for of_phrasing in faq.terms]
        rows = np.repeat(np.arange(len(terms)), [len(dimensions) for dimensions, _ in terms])
        dimensions = np.concatenate([dimensions for dimensions, _ in terms])
        weights = np.concatenate([weights for _, weights in terms])
        order = np.argsort(dimensions, kind="stable")
        self._rows = rows[order]
        self._dimensions, self._begins, places = np.unique(dimensions[order], return_index=True, return_inverse=True)
        once = np.concatenate([np.unique(np.concatenate([own for own, _ in faq.terms])) for faq in faqs])
        containing = np.bincount(np.searchsorted(self._dimensions, once), minlength=len(self._dimensions))
        self._rarity = self._rarity_of(containing)
        self._weights = weights[order] * self._rarity[places]
        lengths = np.sqrt(np.bincount(self._rows, self._weights**2, minlength=len(terms)))
        self._lengths = np.where(lengths > 0, lengths, 1.0)

    def _rarity_of(self, containing: np.ndarray) -> np.ndarray:
        return np.log(1 + (len(self._faqs) + _UNWRITTEN - containing + 0.5) / (containing + 0.5))

    def _lexical(self, question: str) -> np.ndarray:
        products = np.zeros(len(self._ids))
        length = 0.0
        ends = np.append(self._begins[1:], len(self._rows))
        unwritten = float(self._rarity_of(np.zeros(1))[0])
        for term, weight in question_terms(question).items():
            key = dimension(term)
            place = int(np.searchsorted(self._dimensions, key))
            if place == len(self._dimensions) or self._dimensions[place] != key:
                length += (weight * unwritten) ** 2
                continue
            worth = weight * float(self._rarity[place])
            length += worth**2
            begin, end = self._begins[place], ends[place]
            products[self._rows[begin:end]] += worth * self._weights[begin:end]
        return products / (self._lengths * (length**0.5 or 1.0))


def _phrased(faq: Asked) -> _Phrased:
    terms = tuple(map(_terms, faq.phrasings))
    shape = (len(faq.phrasings), DIMENSIONS)
    is_embedded = faq.vectors is not None and len(faq.vectors) == 2 * shape[0] * shape[1]
    vectors = np.zeros(shape, np.float32)
    if is_embedded:
        vectors = np.frombuffer(faq.vectors or b"", np.float16).reshape(shape).astype(np.float32)
    return _Phrased(tuple(map(asked, faq.phrasings)), terms, vectors, is_embedded)


def _terms(phrasing: str) -> tuple[np.ndarray, np.ndarray]:
    weights: dict[int, float] = {}
    for term, weight in question_terms(phrasing).items():
        weights[dimension(term)] = weights.get(dimension(term), 0.0) + weight
    return np.fromiter(weights.keys(), np.int64, len(weights)), np.fromiter(weights.values(), float, len(weights))
