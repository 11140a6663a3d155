"""Finding the passages that fit a text: one embedding, two queries of the index, one read of the record.

The index is asked for what is near in meaning and for what shares terms. The second needs no embedding, so both run at
the same time; one hybrid query would wait for the model and could not fuse the scores as fusion.py does.

What is found goes through stages, each a file of its own: fusion, the record, a rerank model where there is one,
variety, neighbours, snippets.

Who sees a passage and what a search is narrowed to is part of all three. The index may hold what the record has dropped
already (a deleted document, one that is still being indexed or was hidden just now), so more is asked of it than is
wanted, and only the record decides what is returned.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar
from uuid import UUID

from services.knowledge.filters import EVERYTHING, Filters
from services.knowledge.followup import Question, question
from services.knowledge.fusion import fused, lexical_weight
from services.knowledge.lexical import Rarity, SparseVector, dimension
from services.knowledge.matching import Wanted
from services.knowledge.neighbours import joined
from services.knowledge.passages import Passage
from services.knowledge.reranking import BEST, Reranking
from services.knowledge.snippet import NO_SNIPPET, Snippet, snippet
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
    snippet: Snippet = NO_SNIPPET


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

    def __init__(
        self,
        indexes: SearchedIndexes,
        rarities: Rarities,
        passages: Passages,
        reranking: Reranking | None = None,
    ) -> None:
        self._indexes = indexes
        self._rarities = rarities
        self._passages = passages
        self._reranking = reranking

    async def __call__(
        self,
        tenant_id: UUID,
        query: str,
        limit: int,
        user_id: UUID | None = None,
        history: Sequence[str] = (),
        filters: Filters = EVERYTHING,
    ) -> Sequence[FoundPassage]:
        """At most `limit` passages, best first; none for a query without a character to see. Raises Unavailable.

        `history` is what was said before the query, newest last.
        """
        asked = question(query, history)
        if not asked.text:
            return []
        among = max(limit * _ASKED_PER_WANTED, _LEAST_ASKED)
        seen = (tenant_id, among, user_id, filters)
        near, (sharing, rarity) = await self._indexes.ask(
            lambda index: asyncio.gather(self._near(index, asked, *seen), self._sharing(index, asked, *seen))
        )
        passage_ids = fused(near, sharing, lexical_weight(asked.text))
        found = await self._read(tenant_id, asked, passage_ids, limit, user_id, filters)
        wanted = Wanted(asked.text, lambda term: rarity.worth(dimension(term)))
        return [
            replace(best, passage=passage, snippet=snippet(passage.text, wanted))
            for best, passage in joined(varied(found, limit), limit)
        ]

    async def _near(
        self, index: SearchedIndex, asked: Question, tenant_id: UUID, limit: int, user_id: UUID | None, filters: Filters
    ) -> Mapping[UUID, float]:
        vectors = await index.model.embed(asked.texts)
        return await index.rows.nearest(tenant_id, asked.direction(vectors), limit, user_id, filters)

    async def _sharing(
        self, index: SearchedIndex, asked: Question, tenant_id: UUID, limit: int, user_id: UUID | None, filters: Filters
    ) -> tuple[Mapping[UUID, float], Rarity]:
        rarity = await self._rarities.rarity(tenant_id)
        terms = asked.terms(rarity)
        return await index.rows.sharing(tenant_id, terms, limit, user_id, filters) if terms else {}, rarity

    async def _read(
        self,
        tenant_id: UUID,
        asked: Question,
        passage_ids: Sequence[UUID],
        limit: int,
        user_id: UUID | None,
        filters: Filters,
    ) -> Sequence[FoundPassage]:
        """What the record lets the user see, best first, read again by the rerank model."""
        most = limit * _READ_PER_WANTED
        if self._reranking is None:
            return await self._passages.searchable(tenant_id, passage_ids, most, user_id, filters)
        found = await self._passages.searchable(tenant_id, passage_ids, max(most, BEST), user_id, filters)
        return await self._reranking(asked.whole, found)
