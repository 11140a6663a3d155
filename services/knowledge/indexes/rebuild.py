"""Bringing every indexed document into every index that must hold it, and switching to a new one when it is whole.

One replica works at a time, whoever asked for a rebuild, and each document says in the record which index holds it last
(`index_id`). So a crash costs the documents that were on their way, and the next replica goes on. The same work brings
over what an update of Parley or a lost index left behind.

A document is brought like this: read it, write its rows, compare with the record what they say (placing.py), mark it.
A change in between shows in the comparison; one that is made afterwards has an event, whose consumer finds the rows. A
document that ends being indexed meanwhile is in both indexes, or is found here when all others are done. The switch is
one statement that holds back such ends, and refuses while a document is missing.

The old index lives on for a while: searches that began there end there.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol
from uuid import UUID

from services.knowledge.document import Document, DocumentState
from services.knowledge.indexes.copying import Copying
from services.knowledge.indexes.live import CHANGED, Changes, Indexes, IndexRecord
from services.knowledge.indexes.rereading import Rereading
from services.knowledge.indexes.version import Index, IndexState, IndexVersion
from services.knowledge.placing import Placing
from services.shared.errors import Unavailable

GRACE_S = 60.0
"""Between the switch and the end of the old index: longer than any search and than a replica takes to hear of it."""
_LOOK_S = 10.0
_RETRY_S = 2.0
_DOCUMENTS_AT_ONCE = 4
_FOUND_AT_ONCE = 100

_log = logging.getLogger("parley.knowledge")


class RebuildRecord(IndexRecord, Protocol):
    """The record of the indexes and of what they hold. Every method raises Unavailable."""

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Entered by one replica at a time; the others wait."""

    async def missing(self, index_id: int, after: UUID | None, limit: int) -> Sequence[Document]:
        """Indexed documents of all organisations that this index may not hold, by id, those after `after`."""

    async def hold(self, document: Document, index_id: int) -> bool:
        """Mark an indexed document as held by this index and all before; False if it is deleted or not indexed."""

    async def holds_nothing(self, index_id: int) -> None:
        """Mark that no document is held by this index or a later one."""

    async def switch(self, index_id: int) -> bool:
        """Make the building index the active one, unless it is building no more or a document is missing."""

    async def retired(self, age_s: float) -> Sequence[int]:
        """Ids of the indexes that were retired longer ago."""

    async def forget(self, index_id: int) -> None:
        """Drop a retired index from the record."""


class Stores(Protocol):
    """The indexes themselves. Every method raises Unavailable."""

    async def create(self, version: IndexVersion) -> bool:
        """Make it ready to be written and searched; True if there was none, so that it is empty."""

    async def drop(self, index_id: int) -> None: ...


class Rebuild:
    """Keeps the indexes whole, in the background."""

    def __init__(
        self,
        record: RebuildRecord,
        stores: Stores,
        indexes: Indexes,
        placing: Placing,
        copying: Copying,
        rereading: Rereading,
        changes: Changes,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        self._record = record
        self._stores = stores
        self._indexes = indexes
        self._placing = placing
        self._copying = copying
        self._rereading = rereading
        self._changes = changes
        self._grace_s = grace_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._record.alone():
                    await self._keep()
            except Unavailable as waits:
                _log.warning("the indexes wait", extra={"facts": {"reason": waits.reason}})
            await asyncio.sleep(_RETRY_S)

    async def _keep(self) -> None:
        with self._changes.watch(CHANGED) as changed:
            while True:
                changed.clear()
                await self.step()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await changed.wait()

    async def step(self) -> None:
        """Bring the indexes to where the record wants them. Raises Unavailable; done again, it goes on."""
        for index in await self._indexes.live():
            if await self._stores.create(index.version):
                await self._record.holds_nothing(index.version.id)
            await self._fill(index)
            if index.version.state is IndexState.BUILDING and await self._record.switch(index.version.id):
                _log.info("the new index is searched now", extra={"facts": {"index": index.version.id}})
        for index_id in await self._record.retired(self._grace_s):
            await self._stores.drop(index_id)
            await self._record.forget(index_id)

    async def bring(self, document: Document, index: Index) -> None:
        """Bring an indexed document into this index, as the record says that it is. Raises Unavailable."""
        if index.version.from_originals and index.version.state is IndexState.BUILDING:
            document = await self._rereading.reread(document)
        else:
            await self._copying.copy(document, index)
        while now := await self._placing.place(document.tenant_id, document.id, document):
            if now.state is not DocumentState.INDEXED or await self._record.hold(now, index.version.id):
                return
            document = now

    async def _fill(self, index: Index) -> None:
        """One document that can't be brought in does not stop the others."""
        after: UUID | None = None
        failures: list[Unavailable] = []
        while found := await self._record.missing(index.version.id, after, _FOUND_AT_ONCE):
            slots, before = asyncio.Semaphore(_DOCUMENTS_AT_ONCE), len(failures)
            async with asyncio.TaskGroup() as copies:
                for document in found:
                    copies.create_task(self._bring_in(slots, document, index, failures))
            if len(failures) - before == len(found):
                break  # it is not about single documents
            after = found[-1].id
            if index.version.id not in [live.version.id for live in await self._indexes.live()]:
                return  # cancelled
        if failures:
            raise failures[0]

    async def _bring_in(
        self, slots: asyncio.Semaphore, document: Document, index: Index, failures: list[Unavailable]
    ) -> None:
        async with slots:
            try:
                await self.bring(document, index)
            except Unavailable as failure:
                facts = {"document": document.id, "index": index.version.id, "reason": failure.reason}
                _log.warning("a document is not brought in yet", extra={"facts": facts})
                failures.append(failure)
