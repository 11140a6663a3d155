"""Finding the passages that fit a text: one embedding, two queries of the index, one read of the record.

The index is asked for what is near in meaning and for what shares terms. The second needs no embedding, so both run at
the same time; one hybrid query would wait for the model and could not fuse the scores as fusion.py does.

Who sees a passage and what a search is narrowed to is part of all three. The index may hold what the record has dropped
already (a deleted document, one that is still being indexed or was hidden just now), so more is asked of it than is
wanted, and only the record decides what is returned.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from services.knowledge.filters import EVERYTHING, Filters
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

T = TypeVar("T")
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


class SearchedRows(Protocol):
    """The rows of an index: those alone that `user_id` sees (None: that everybody sees) and that pass the filters."""

    async def nearest(
        self,
        tenant_id: UUID,
        vector: Vector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        """The organisation's passages whose vectors are nearest, best first, with the cosine. Raises Unavailable."""

    async def sharing(
        self,
        tenant_id: UUID,
        terms: SparseVector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        """The organisation's passages with the largest inner product, best first, with it. Raises Unavailable."""


class SearchedIndex(Protocol):
    """An index with the model that its vectors are of."""

    @property
    def model(self) -> Embedding: ...

    @property
    def rows(self) -> SearchedRows: ...


class SearchedIndexes(Protocol):
    """The indexes of all passages, of which one is searched."""

    async def ask(self, search: Callable[[SearchedIndex], Awaitable[T]]) -> T:
        """What a search says of the index; asked of another one when that has taken its place. Raises Unavailable."""


class Rarities(Protocol):
    """What terms are worth."""

    async def rarity(self, tenant_id: UUID) -> Rarity:
        """Of the terms in the organisation's passages. Raises Unavailable."""


class Passages(Protocol):
    """The record of the passages."""

    async def searchable(
        self,
        tenant_id: UUID,
        passage_ids: Sequence[UUID],
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Sequence[FoundPassage]:
        """Those of the organisation's passages whose document is indexed, in the order asked, at most `limit`.

        Those of private documents only for their uploader `user_id`, and none that the filters leave out.
        """


class Search:
    """Search in the documents of an organisation."""

    def __init__(self, indexes: SearchedIndexes, rarities: Rarities, passages: Passages) -> None:
        self._indexes = indexes
        self._rarities = rarities
        self._passages = passages

    async def __call__(
        self,
        tenant_id: UUID,
        query: str,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Sequence[FoundPassage]:
        """At most `limit` passages, best first; none for a query without a character to see. Raises Unavailable."""
        if not (text := seen(query)):
            return []
        asked = max(limit * _ASKED_PER_WANTED, _LEAST_ASKED)
        near, sharing = await self._indexes.ask(
            lambda index: asyncio.gather(
                self._near(index, tenant_id, text, asked, user_id, filters),
                self._sharing(index, tenant_id, text, asked, user_id, filters),
            )
        )
        passage_ids = fused(near, sharing, lexical_weight(text))
        found = await self._passages.searchable(tenant_id, passage_ids, limit * _READ_PER_WANTED, user_id, filters)
        return varied(found, limit)

    async def _near(
        self, index: SearchedIndex, tenant_id: UUID, text: str, limit: int, user_id: UUID | None, filters: Filters
    ) -> Mapping[UUID, float]:
        [vector] = await index.model.embed([text])
        return await index.rows.nearest(tenant_id, vector, limit, user_id, filters)

    async def _sharing(
        self, index: SearchedIndex, tenant_id: UUID, text: str, limit: int, user_id: UUID | None, filters: Filters
    ) -> Mapping[UUID, float]:
        terms = (await self._rarities.rarity(tenant_id)).question_vector(text)
        return await index.rows.sharing(tenant_id, terms, limit, user_id, filters) if terms else {}
