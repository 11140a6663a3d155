"""Bringing the passages that the record has of a document into an index."""

from collections.abc import Sequence
from typing import Protocol

from services.knowledge.document import Document
from services.knowledge.indexes.version import Index
from services.knowledge.passages import Passage

BATCH = 16
"""Passages in one call of the model: a question that is searched meanwhile waits for it (indexing.py)."""


class RecordedPassages(Protocol):
    """The record of the passages."""

    async def passages(self, document: Document, first: int, limit: int) -> Sequence[Passage]:
        """Those of a document from position `first` on, in order. Raises Unavailable."""


class Copying:
    """Copies documents from the record into an index, over what that holds of them."""

    def __init__(self, record: RecordedPassages) -> None:
        self._record = record

    async def copy(self, document: Document, index: Index) -> None:
        """Write all passages of a document. Raises Unavailable."""
        first = 0
        while batch := await self._record.passages(document, first, BATCH):
            await index.write(document, batch)
            first = batch[-1].position + 1
