"""Where a document's passages stand in the index: who may read them, in which collection. It follows the record.

What is written is compared with the record afterwards, and written again until they agree. So the last one of several
writers at once, indexing among them, leaves what the record says, in whatever order they began and their events came;
a change after the comparison has an event of its own.
"""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from services.knowledge.document import Document, Visibility


class PlacedDocuments(Protocol):
    """The record of the documents."""

    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None: ...


class PlacedRows(Protocol):
    """The rows of an index. Every method raises Unavailable."""

    async def place(self, document: Document) -> None:
        """Write who may read those of the document's passages that the index holds, and where they belong."""

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        """Remove all passages of a document; nothing if there are none."""


class PlacedIndex(Protocol):
    @property
    def rows(self) -> PlacedRows: ...


class LiveIndexes(Protocol):
    """The indexes that must hold every document."""

    async def live(self) -> Sequence[PlacedIndex]:
        """Raises Unavailable."""


class Placing:
    """Brings the rows of documents to where the record says that they are. Every method may be repeated."""

    def __init__(self, documents: PlacedDocuments, indexes: LiveIndexes) -> None:
        self._documents = documents
        self._indexes = indexes

    async def place(self, tenant_id: UUID, document_id: UUID, written: Document | None = None) -> Document | None:
        """The document as its rows say it is, and as the record did last; None if it is deleted, its rows removed.

        `written` is what its rows were written by, if that is known. Raises Unavailable.
        """
        while document := await self._documents.find(tenant_id, document_id):
            if written and _place(document) == _place(written):
                return document
            for index in await self._indexes.live():
                await index.rows.place(document)
            written = document
        await self.remove(tenant_id, document_id)
        return None

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        """Remove the rows of a document. Raises Unavailable."""
        for index in await self._indexes.live():
            await index.rows.remove(tenant_id, document_id)


def _place(document: Document) -> tuple[Visibility, str, str]:
    return document.file.visibility, document.file.collection, document.content_type
