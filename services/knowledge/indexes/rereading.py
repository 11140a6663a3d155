"""Reading the original of an indexed document again, and cutting it anew: what a better reader of its format gains.

The record first, then every index in use: in between, for as long as the embedding takes, a search may find a passage
by what stood in its place before. What can't be read any more, or is lost, keeps its passages.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from services.knowledge.document import Document, Progress
from services.knowledge.indexes.copying import Copying
from services.knowledge.indexes.live import Indexes
from services.knowledge.indexing import Extraction, Originals, Unreadable
from services.knowledge.passages import Passage, passage_id
from services.shared.errors import Unavailable

_AT_ONCE = 2

_log = logging.getLogger("parley.knowledge")


class RereadRecord(Protocol):
    """The record of the passages."""

    async def replace_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        """Write these passages of an indexed document in place of those that it has, and what its content turned out to
        be; False if it is deleted. Raises Unavailable."""


class Rereading:
    """Cuts documents anew."""

    def __init__(
        self,
        record: RereadRecord,
        originals: Originals,
        extraction: Extraction,
        indexes: Indexes,
        copying: Copying,
    ) -> None:
        self._record = record
        self._originals = originals
        self._extraction = extraction
        self._indexes = indexes
        self._copying = copying
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def reread(self, document: Document) -> Document:
        """Bring an indexed document, cut anew, into all indexes in use; as it is then. Raises Unavailable."""
        async with self._slots:
            now = await self._replaced(document)
        indexes = await self._indexes.live()
        for index in indexes:
            await self._copying.copy(now, index)
        beyond = range(now.progress.passages, document.progress.passages)
        surplus = [passage_id(document.id, position) for position in beyond]
        for index in indexes:
            await index.rows.delete(surplus)
        return now

    async def _replaced(self, document: Document) -> Document:
        try:
            async with self._extraction.read(self._originals.read(document.tenant_id, document.id)) as extracted:
                passages = await asyncio.to_thread(list, extracted.passages)
        except Unreadable as unreadable:
            _log.warning("a document is not read again", extra={"facts": {"document": document.id, "why": unreadable}})
            return document
        except Unavailable as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            _log.warning("an original is lost", extra={"facts": {"document": document.id}})
            return document
        progress = Progress(extracted.pages, len(passages), len(passages))
        now = replace(document, content_type=extracted.content_type, progress=progress)
        await self._record.replace_passages(now, passages)
        return now
