"""Finding what crashes, lost events and damaged stores left behind, and mending it.

What belongs to a document that lives is never touched, nor what may be on its way in: a document's record is there
before the rows of its passages are, so whoever finds these first and then no record, found what was left of it. Only an
original is stored before its document; it is left alone until no upload of it can still be under way.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.knowledge.document import Document
from services.knowledge.indexes.live import Indexes
from services.knowledge.indexes.version import Index, Row
from services.shared.errors import Unavailable

_FIRST_S, _EVERY_S = 600.0, 24 * 3600.0
OBJECT_AGE_S = 3600.0
_PAGE = 500

_log = logging.getLogger("parley.knowledge")


@dataclass(frozen=True)
class Stored:
    """An original, or a chunk of an unfinished upload, in the store; `owner_id` is the document or the upload."""

    key: str
    owner_id: UUID
    is_chunk: bool


@dataclass
class Mended:
    """What did not agree with the record: counts."""

    rows: int = 0
    """Of an index, without a living document or passage; removed."""
    objects: int = 0
    """Without a living document or upload; deleted."""
    passages: int = 0
    """In the record, of documents that are neither indexed nor being indexed; deleted."""
    documents: int = 0
    """Indexed, and not as a whole in an index; brought into it."""
    organisations: int = 0
    """Whose count of documents and bytes was wrong; counted anew."""


class CheckedRecord(Protocol):
    """The record, of all organisations. Every method raises Unavailable."""

    async def orphans(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Those whose document is gone or failed, or is indexed and has no such passage."""

    async def unknown(self, objects: Sequence[Stored]) -> Sequence[Stored]:
        """Those whose document or upload is gone."""

    async def drop_stray_passages(self) -> int:
        """Delete the passages of documents that are neither indexed nor being indexed; how many there were."""

    async def held_by(self, index_id: int, after: UUID | None, limit: int) -> Sequence[Document]:
        """The indexed documents that this index should hold, by id, those after `after`."""

    async def recount(self) -> int:
        """Count what each organisation has; how many counts were wrong."""


class CheckedOriginals(Protocol):
    """The store of originals. Every method raises Unavailable."""

    def older_than(self, age_s: float) -> AsyncIterator[Sequence[Stored]]:
        """What was stored longer ago."""

    async def delete_keys(self, keys: Sequence[str]) -> None: ...


class Bringing(Protocol):
    """Brings documents into indexes."""

    async def bring(self, document: Document, index: Index) -> None:
        """Raises Unavailable."""


class Reconcile:
    """Mends what does not agree with the record; may be done again, and by several replicas at once."""

    def __init__(
        self,
        record: CheckedRecord,
        indexes: Indexes,
        originals: CheckedOriginals,
        bringing: Bringing,
        *,
        object_age_s: float = OBJECT_AGE_S,
    ) -> None:
        self._record = record
        self._indexes = indexes
        self._originals = originals
        self._bringing = bringing
        self._object_age_s = object_age_s

    async def run(self) -> None:
        """Now and then, until cancelled."""
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self()
            except Unavailable as error:
                _log.warning("leftovers are looked for later", extra={"facts": {"reason": error.reason}})
            await asyncio.sleep(_EVERY_S)

    async def __call__(self) -> Mended:
        """Look at everything once. Raises Unavailable."""
        mended = Mended()
        for index in await self._indexes.live():
            counts = await self._remove_orphans(index, mended)
            await self._bring_missing(index, counts, mended)
        async for objects in self._originals.older_than(self._object_age_s):
            unknown = await self._record.unknown(objects)
            await self._originals.delete_keys([each.key for each in unknown])
            mended.objects += len(unknown)
        mended.passages = await self._record.drop_stray_passages()
        mended.organisations = await self._record.recount()
        _log.info("looked for leftovers", extra={"facts": vars(mended)})
        return mended

    async def _remove_orphans(self, index: Index, mended: Mended) -> Counter[UUID]:
        """Returns how many good rows each document has."""
        counts = Counter[UUID]()
        async for rows in index.rows.all():
            orphans = await self._record.orphans(rows)
            await index.rows.delete([row.passage_id for row in orphans])
            mended.rows += len(orphans)
            counts.update(row.document_id for row in rows)
            counts.subtract(row.document_id for row in orphans)
        return counts

    async def _bring_missing(self, index: Index, counts: Counter[UUID], mended: Mended) -> None:
        after: UUID | None = None
        while found := await self._record.held_by(index.version.id, after, _PAGE):
            for document in found:
                # What was not there yet when the rows were read may be by now.
                wanted = document.progress.passages
                if counts[document.id] < wanted and await index.rows.count(document) < wanted:
                    await self._bringing.bring(document, index)
                    mended.documents += 1
            after = found[-1].id
