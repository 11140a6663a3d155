"""Indexing a document: read its text, cut it, embed the passages, write them to the index and the record.

Every step may be repeated: passage ids follow from document and position, the index is written by id, and only the
first of several ends counts. So a crash at any point costs work and nothing else. What the content of the file makes
impossible ends the document as failed, once; what the mesh makes impossible for now is raised, to be tried again.

A document can be deleted while it is indexed. Its row is then gone when indexing ends, and the vectors that were
written after the removal are removed by whoever wrote them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Protocol
from uuid import UUID

from services.knowledge.document import MAX_FAILURE_CHARACTERS, Document, DocumentState, Failure
from services.knowledge.passages import Passage
from services.knowledge.search import Embedding, Vector
from services.shared.errors import Reason, Unavailable

BATCH = 16
"""Passages in one call of the embedding model, one write of the index and one of the record. Half of what the model
takes at once: a question that is searched meanwhile waits for a batch that is running, so that one must be short."""
_BATCHES_IN_FLIGHT = 2
"""Of all documents of one process: while one is embedded the next one waits or is written, so the model never does."""


class Unreadable(Exception):
    """The content of a file can't be indexed, now or later. `failure` says why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason, message[:MAX_FAILURE_CHARACTERS])


class _Ended(Exception):
    """The document was deleted, or has ended otherwise, while it was indexed."""


@dataclass(frozen=True)
class Extracted:
    """What was read from a file. `pages` is 0 where the format has none; `passages` can be run through once."""

    content_type: str
    pages: int
    passage_count: int
    passages: Iterator[Passage]


class Extraction(Protocol):
    """Reads files of any content, without harm to this process."""

    def read(self, content: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Extracted]:
        """What the file says; entering raises Unreadable."""


class Originals(Protocol):
    """The store of originals. Every method raises Unavailable."""

    def read(self, tenant_id: UUID, document_id: UUID) -> AsyncIterator[bytes]: ...

    async def delete(self, tenant_id: UUID, document_id: UUID) -> None: ...


class Index(Protocol):
    """The index of all passages. Every method raises Unavailable."""

    async def write(self, document: Document, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        """Add passages of a document, or replace them by position."""

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        """Remove all passages of a document; nothing if there are none."""


class IndexedDocuments(Protocol):
    """The record of documents and passages, as far as indexing changes it."""

    async def begin_indexing(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        """The document, INDEXING with no progress and no passages unless it has ended already; None if deleted."""

    async def announce(self, document: Document, extracted: Extracted) -> None:
        """Write what the content turned out to be."""

    async def add_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        """Write passages and progress; False if the document is being indexed no more."""

    async def complete(self, document: Document, passage_count: int) -> bool:
        """INDEXING -> INDEXED, and say so to the world; False if the document is being indexed no more."""

    async def fail(self, document: Document, failure: Failure) -> bool:
        """INDEXING or QUEUED -> FAILED without passages, and say so to the world; False if it has ended otherwise."""

    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None: ...


class Indexing:
    """Brings documents into the index and out of it."""

    def __init__(
        self,
        documents: IndexedDocuments,
        originals: Originals,
        extraction: Extraction,
        embedding: Embedding,
        index: Index,
    ) -> None:
        self._documents = documents
        self._originals = originals
        self._extraction = extraction
        self._embedding = embedding
        self._index = index
        self._slots = asyncio.Semaphore(_BATCHES_IN_FLIGHT)

    async def index(self, tenant_id: UUID, document_id: UUID) -> None:
        """Index a document, unless it has ended already. Raises when it should be tried again."""
        document = await self._documents.begin_indexing(tenant_id, document_id)
        if document is None:
            await self._index.remove(tenant_id, document_id)
        elif document.state is DocumentState.INDEXING:
            try:
                await self._index_passages(document)
            except Unreadable as error:
                await self._documents.fail(document, error.failure)

    async def give_up(self, tenant_id: UUID, document_id: UUID) -> None:
        """End a document as failed whose indexing failed too often."""
        document = await self._documents.find(tenant_id, document_id)
        if document is None:
            return
        message = "Indexing failed several times for a reason that is not in the file. Upload it again later."
        await self._documents.fail(document, Failure(Reason.INDEXING_FAILED, message))
        with suppress(Unavailable):  # search does not show them, and deleting the document removes them
            await self._index.remove(tenant_id, document_id)

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        """Remove what a deleted document left in the index and the store of originals."""
        await self._index.remove(tenant_id, document_id)
        await self._originals.delete(tenant_id, document_id)

    async def _index_passages(self, document: Document) -> None:
        async with self._extraction.read(self._originals.read(document.tenant_id, document.id)) as extracted:
            await self._documents.announce(document, extracted)
            try:
                async with asyncio.TaskGroup() as batches:
                    while batch := list(islice(extracted.passages, BATCH)):
                        await self._slots.acquire()
                        task = batches.create_task(self._index_batch(document, batch))
                        task.add_done_callback(lambda _: self._slots.release())
            except* _Ended:
                pass  # `complete` sees it, too
        if not await self._documents.complete(document, extracted.passage_count):
            await self._remove_if_deleted(document)

    async def _index_batch(self, document: Document, batch: Sequence[Passage]) -> None:
        vectors = await self._embedding.embed([passage.searchable_text for passage in batch])
        await self._index.write(document, batch, vectors)
        if not await self._documents.add_passages(document, batch):
            raise _Ended

    async def _remove_if_deleted(self, document: Document) -> None:
        if await self._documents.find(document.tenant_id, document.id) is None:
            await self._index.remove(document.tenant_id, document.id)
