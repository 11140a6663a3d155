"""Finding the passages that fit a text: one embedding, two queries of the index, one read of the record.

The index is asked for what is near in meaning and for what shares terms. The second needs no embedding, so both run at
the same time; one hybrid query would wait for the model and could not fuse the scores as fusion.py does.

The index may hold what the record has dropped already (a deleted document, one that is still being indexed), so more is
asked of it than is wanted, and only the record decides what is returned.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.knowledge.fusion import fused, lexical_weight
from services.knowledge.lexical import Rarity, SparseVector
from services.knowledge.passages import Passage
from services.knowledge.text import seen
from services.knowledge.variety import varied

_ASKED_PER_WANTED = 3
_LEAST_ASKED = 50
"""Of each side. A passage that only one side finds is judged by that side alone, so fewer would be judged worse."""
_READ_PER_WANTED = 2
"""Of the record: what takes the places of copies and of a flood from one document."""

Vector = Sequence[float]


@dataclass(frozen=True)
class FoundPassage:
    """A passage with the document that it stands in."""

    id: UUID
    document_id: UUID
    filename: str
    passage: Passage


class Embedding(Protocol):
    """The embedding model."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """One vector of length 1 for each text. Raises Unavailable."""


class SearchableIndex(Protocol):
    """The index of all passages."""

    async def nearest(self, tenant_id: UUID, vector: Vector, limit: int) -> Mapping[UUID, float]:
        """The organisation's passages whose vectors are nearest, best first, with the cosine. Raises Unavailable."""

    async def sharing(self, tenant_id: UUID, terms: SparseVector, limit: int) -> Mapping[UUID, float]:
        """The organisation's passages with the largest inner product, best first, with it. Raises Unavailable."""


class Rarities(Protocol):
    """What terms are worth."""

    async def rarity(self, tenant_id: UUID) -> Rarity:
        """Of the terms in the organisation's passages. Raises Unavailable."""


class Passages(Protocol):
    """The record of the passages."""

    async def searchable(
        self, tenant_id: UUID, passage_ids: Sequence[UUID], limit: int, user_id: UUID | None = None
    ) -> Sequence[FoundPassage]:
        """Those of the organisation's passages whose document is indexed, in the order asked, at most `limit`.

        Those of private documents only for their uploader `user_id`.
        """


class Search:
    """Search in the documents of an organisation."""

    def __init__(self, embedding: Embedding, index: SearchableIndex, rarities: Rarities, passages: Passages) -> None:
        self._embedding = embedding
        self._index = index
        self._rarities = rarities
        self._passages = passages

    async def __call__(
        self, tenant_id: UUID, query: str, limit: int, user_id: UUID | None = None
    ) -> Sequence[FoundPassage]:
        """At most `limit` passages, best first; none for a query without a character to see. Raises Unavailable."""
        if not (text := seen(query)):
            return []
        asked = max(limit * _ASKED_PER_WANTED, _LEAST_ASKED)
        near, sharing = await asyncio.gather(
            self._near(tenant_id, text, asked),
            self._sharing(tenant_id, text, asked),
        )
        passage_ids = fused(near, sharing, lexical_weight(text))
        found = await self._passages.searchable(tenant_id, passage_ids, limit * _READ_PER_WANTED, user_id)
        return varied(found, limit)

    async def _near(self, tenant_id: UUID, text: str, limit: int) -> Mapping[UUID, float]:
        [vector] = await self._embedding.embed([text])
        return await self._index.nearest(tenant_id, vector, limit)

    async def _sharing(self, tenant_id: UUID, text: str, limit: int) -> Mapping[UUID, float]:
        terms = (await self._rarities.rarity(tenant_id)).question_vector(text)
        return await self._index.sharing(tenant_id, terms, limit) if terms else {}
