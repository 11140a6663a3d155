"""An index as the record knows it, and what can be done with its rows."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from services.knowledge.document import Document
from services.knowledge.passages import Passage
from services.knowledge.search import Embedding, SearchedRows, Vector


class IndexState(StrEnum):
    """BUILDING -> ACTIVE -> RETIRED, or BUILDING -> RETIRED when a rebuild is cancelled. One at most is BUILDING, one
    ACTIVE; a RETIRED one is dropped after a while."""

    BUILDING = "building"
    ACTIVE = "active"
    RETIRED = "retired"


@dataclass(frozen=True)
class IndexVersion:
    """An index: all passages of all organisations, embedded by one model. Later ones have higher ids."""

    id: int
    state: IndexState
    embedding_model: str
    dimensions: int
    from_originals: bool = False
    """Whether documents are cut anew for it; else their passages in the record are taken."""


@dataclass(frozen=True)
class Holding:
    """How much of what is indexed an index holds, of all organisations."""

    documents: int
    documents_held: int
    passages: int
    passages_held: int


@dataclass(frozen=True)
class Row:
    """A row of an index, without what it is searched by."""

    passage_id: UUID
    tenant_id: UUID
    document_id: UUID


class Rows(SearchedRows, Protocol):
    """The rows of one index. Every method raises Unavailable."""

    async def write(self, document: Document, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        """Add passages of a document, or replace them by position."""

    async def place(self, document: Document) -> None:
        """Write who may read those of the document's passages that the index holds, and where they belong."""

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        """Remove all passages of a document; nothing if there are none."""

    async def delete(self, passage_ids: Sequence[UUID]) -> None:
        """Remove passages."""

    async def count(self, document: Document) -> int:
        """How many of the document's passages there are."""

    def all(self) -> AsyncIterator[Sequence[Row]]:
        """Every row of every organisation, some at a time; of those that come and go meanwhile some."""

    async def probe(self) -> None:
        """Raise unless it can be searched."""


@dataclass(frozen=True)
class Index:
    """An index with its rows and the model that its vectors are of."""

    version: IndexVersion
    model: Embedding
    rows: Rows

    async def write(self, document: Document, passages: Sequence[Passage]) -> None:
        """Embed passages of a document and write them. Raises Unavailable."""
        vectors = await self.model.embed([passage.searchable_text for passage in passages])
        await self.rows.write(document, passages, vectors)
