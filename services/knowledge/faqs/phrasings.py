"""The phrasings of one organisation's FAQs as arrays, so that a question is compared with all of them at once.

How alike a question and a phrasing are is a weighted sum, as in fusion.py: of the cosine of their embeddings and of
that of their terms. Unlike there the lexical side is absolute, not relative to the best: a best match that is no match
must show. And unlike in a search for passages no term is worth more for being rare, and small words count: "who" and
"when" before the same name ask for different answers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from services.knowledge.faqs.faq import asked
from services.knowledge.faqs.matching import Asked
from services.knowledge.language import FUNCTION_WORDS
from services.knowledge.lexical import SparseVector, dimension
from services.knowledge.search import Vector
from services.knowledge.terms import question_terms

_LATIN_WORD = re.compile("[a-z]+")
_FUNCTION_WORD_WEIGHT = 5.0


@dataclass(frozen=True)
class _Phrased:
    """One FAQ. `terms` are (dimensions, weights) of each phrasing; `vectors` are FP16, empty while unknown."""

    keys: tuple[str, ...]
    terms: tuple[tuple[np.ndarray, np.ndarray], ...]
    vectors: bytes


class PhrasingTable:
    """Implements matching.Phrasings. Immutable; `with_changes` makes another one."""

    def __init__(self, faqs: Mapping[UUID, _Phrased] | None = None) -> None:
        self._faqs = dict(faqs or {})
        self._ids = [faq_id for faq_id, faq in self._faqs.items() for _ in faq.keys]
        self._exact = {key: faq_id for faq_id, faq in self._faqs.items() for key in faq.keys}
        # What one FAQ asks goes before what another one asks besides.
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
        """The FAQ with the phrasing that is most like the question, and how alike they are, at most 1.

        `weight` is that of the terms; phrasings without a vector are compared by terms alone.
        """
        if not self._faqs:
            return None
        likeness = shared = self._lexical(question)
        if len(vector) == self._vectors.shape[1]:
            dense = self._vectors @ np.asarray(vector, np.float32)
            likeness = np.where(self._embedded, weight * shared + (1.0 - weight) * dense, shared)
        # What the model has no words for, it takes for the same: two emoji, two lines of a script.
        likeness = np.where(shared > 0, likeness, 0.0)
        best = int(likeness.argmax())
        return self._ids[best], float(likeness[best])

    def _arrange(self) -> None:
        """The terms of all phrasings, ordered by dimension: those of one stand together, from `_begins` on."""
        faqs = self._faqs.values()
        size = max(len(faq.vectors) // len(faq.keys) for faq in faqs)  # the same for all, but for unknown ones
        known = [len(faq.vectors) == size * len(faq.keys) > 0 for faq in faqs]
        vectors = [
            faq.vectors if is_known else bytes(size * len(faq.keys)) for faq, is_known in zip(faqs, known, strict=True)
        ]
        self._vectors = np.frombuffer(b"".join(vectors), np.float16).reshape(len(self._ids), -1).astype(np.float32)
        self._embedded = np.repeat(known, [len(faq.keys) for faq in faqs])
        terms = [of_phrasing for faq in faqs for of_phrasing in faq.terms]
        rows = np.repeat(np.arange(len(terms), dtype=np.int32), [len(dimensions) for dimensions, _ in terms])
        dimensions = np.concatenate([dimensions for dimensions, _ in terms])
        order = np.argsort(dimensions, kind="stable")
        self._rows = rows[order]
        self._weights = np.concatenate([weights for _, weights in terms])[order]
        self._dimensions, begins = np.unique(dimensions[order], return_index=True)
        self._begins = np.append(begins, len(order))

    def _lexical(self, question: str) -> np.ndarray:
        cosines = np.zeros(len(self._ids))
        for key, weight in _terms(question).items():
            place = int(np.searchsorted(self._dimensions, key))
            if place < len(self._dimensions) and self._dimensions[place] == key:
                own = slice(self._begins[place], self._begins[place + 1])
                cosines[self._rows[own]] += weight * self._weights[own]
        return cosines


def _phrased(faq: Asked) -> _Phrased:
    return _Phrased(
        keys=tuple(map(asked, faq.phrasings)),
        terms=tuple(
            (np.fromiter(terms.keys(), np.uint32, len(terms)), np.fromiter(terms.values(), np.float32, len(terms)))
            for terms in map(_terms, faq.phrasings)
        ),
        vectors=faq.vectors or b"",
    )


def _terms(text: str) -> SparseVector:
    """Of length 1; empty for a text without terms. Roots, so that a word with its groups of letters is one word."""
    weights: dict[int, float] = {}
    for term, weight in question_terms(text).items():
        weights[dimension(term)] = weight**0.5
    for word in _LATIN_WORD.findall(asked(text)):
        if word in FUNCTION_WORDS:
            weights[dimension(f"~{word}")] = _FUNCTION_WORD_WEIGHT**0.5
    length = sum(weight * weight for weight in weights.values()) ** 0.5
    return {key: weight / length for key, weight in weights.items()}
