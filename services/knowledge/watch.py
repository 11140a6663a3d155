"""Following a document while it is indexed, for as long as the reader's sign-in holds.

A watcher reads the record whenever it may have changed, so one that is slow or comes late gets the current state and
misses only states in between.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

from services.knowledge.document import Document, Documents, Member, get
from services.shared.errors import Reason, Unauthenticated


class Changes(Protocol):
    """Tells when something may have changed."""

    def watch(self, key: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever the document with this id may have changed."""


class Watch:
    """Watches documents."""

    def __init__(self, documents: Documents, changes: Changes, clock_s: Callable[[], float] = time.time) -> None:
        self._documents = documents
        self._changes = changes
        self._clock_s = clock_s

    async def __call__(self, member: Member, document_id: UUID, expires_at_s: float) -> AsyncIterator[Document]:
        """The document now and after each change, until it is indexed or failed.

        Raises NotFound, also when the document is deleted or hidden from the member meanwhile, and Unauthenticated at
        `expires_at_s` (Unix time).
        """
        seen: Document | None = None
        with self._changes.watch(str(document_id)) as changed:
            while True:
                changed.clear()
                document = await get(self._documents, member, document_id)
                if document != seen:
                    yield document
                if document.state.is_final:
                    return
                seen = document
                try:
                    await asyncio.wait_for(changed.wait(), expires_at_s - self._clock_s())
                except TimeoutError as error:
                    message = "The access token has expired: refresh it and watch again."
                    raise Unauthenticated(Reason.TOKEN_EXPIRED, message) from error
