"""Indexing a document: read its text, cut it, embed the passages, write them to the index and the record.

Every step may be repeated: passage ids follow from document and position, the index is written by id, and only the
first of several ends counts. So a crash at any point costs work and nothing else. What the content of the file makes
impossible ends the document as failed, once; what the mesh makes impossible for now is raised, to be tried again.

A document can be deleted while it is indexed. Its row is then gone when indexing ends, and the vectors that were
written after the removal are removed by whoever wrote them. It can be shared, hidden or moved, too: before it is called
indexed, its rows say what the record says (placing.py).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol
from uuid import UUID

from services.knowledge.document import MAX_FAILURE_CHARACTERS, Document, DocumentState, Failure
from services.knowledge.indexes.copying import Copying
from services.knowledge.indexes.live import Indexes
from services.knowledge.indexes.version import Index
from services.knowledge.passages import Passage
from services.knowledge.placing import Placing
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


class IndexedDocuments(Protocol):
    """The record of documents and passages, as far as indexing changes it."""

    async def begin_indexing(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        """The document, INDEXING with no progress and no passages unless it has ended already; None if deleted."""

    async def announce(self, document: Document, extracted: Extracted) -> None:
        """Write what the content turned out to be."""

    async def add_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        """Write passages and progress; False if the document is being indexed no more."""

    async def complete(self, document: Document, passage_count: int, index_id: int) -> bool:
        """INDEXING -> INDEXED, and say so to the world; False if the document is being indexed no more, or if an index
        later than `index_id`, which holds it, is the active one."""

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
        indexes: Indexes,
        placing: Placing,
        copying: Copying,
    ) -> None:
        self._documents = documents
        self._originals = originals
        self._extraction = extraction
        self._indexes = indexes
        self._placing = placing
        self._copying = copying
        self._slots = asyncio.Semaphore(_BATCHES_IN_FLIGHT)

    async def index(self, tenant_id: UUID, document_id: UUID) -> None:
        """Index a document, unless it has ended already. Raises when it should be tried again."""
        document = await self._documents.begin_indexing(tenant_id, document_id)
        if document is None:
            await self._placing.remove(tenant_id, document_id)
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
            await self._placing.remove(tenant_id, document_id)

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        """Remove what a deleted document left in the index and the store of originals."""
        await self._placing.remove(tenant_id, document_id)
        await self._originals.delete(tenant_id, document_id)

    async def _index_passages(self, document: Document) -> None:
        async with self._extraction.read(self._originals.read(document.tenant_id, document.id)) as extracted:
            await self._documents.announce(document, extracted)
            document = replace(document, content_type=extracted.content_type)
            indexes = await self._indexes.live()
            try:
                async with asyncio.TaskGroup() as batches:
                    while batch := list(islice(extracted.passages, BATCH)):
                        await self._slots.acquire()
                        task = batches.create_task(self._index_batch(document, batch, indexes))
                        task.add_done_callback(lambda _: self._slots.release())
            except* _Ended:
                pass  # `_complete` sees it, too
        await self._complete(document, extracted.passage_count, indexes)

    async def _index_batch(self, document: Document, batch: Sequence[Passage], indexes: Sequence[Index]) -> None:
        for index in indexes:
            await index.write(document, batch)
        if not await self._documents.add_passages(document, batch):
            raise _Ended

    async def _complete(self, document: Document, passage_count: int, indexes: Sequence[Index]) -> None:
        while now := await self._placing.place(document.tenant_id, document.id, document):
            last = indexes[-1].version.id
            if now.state is not DocumentState.INDEXING or await self._documents.complete(now, passage_count, last):
                return
            # Another index took the place of the one that was written, or the document was deleted just now.
            indexes = await self._indexes.live()
            for index in indexes:
                if index.version.id > last:
                    await self._copying.copy(now, index)
            document = now
