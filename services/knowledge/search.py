"""Finding the passages that fit a text: one embedding, one query of the index, one read of the record.

The index may hold what the record has dropped already (a deleted document, one that is still being indexed), so more is
asked of it than is wanted, and only the record decides what is returned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.knowledge.passages import Passage
from services.knowledge.text import seen

_ASKED_PER_WANTED = 3
_LEAST_ASKED = 20

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

    async def search(self, tenant_id: UUID, text: str, vector: Vector, limit: int) -> Sequence[UUID]:
        """Ids of the organisation's passages that fit best, best first. Raises Unavailable."""


class Passages(Protocol):
    """The record of the passages."""

    async def searchable(self, tenant_id: UUID, passage_ids: Sequence[UUID], limit: int) -> Sequence[FoundPassage]:
        """Those of the organisation's passages whose document is indexed, in the order asked, at most `limit`."""


class Search:
    """Search in the documents of an organisation."""

    def __init__(self, embedding: Embedding, index: SearchableIndex, passages: Passages) -> None:
        self._embedding = embedding
        self._index = index
        self._passages = passages

    async def __call__(self, tenant_id: UUID, query: str, limit: int) -> Sequence[FoundPassage]:
        """At most `limit` passages, best first; none for a query without a character to see. Raises Unavailable."""
        if not (text := seen(query)):
            return []
        [vector] = await self._embedding.embed([text])
        asked = max(limit * _ASKED_PER_WANTED, _LEAST_ASKED)
        passage_ids = await self._index.search(tenant_id, text, vector, asked)
        return await self._passages.searchable(tenant_id, passage_ids, limit)
