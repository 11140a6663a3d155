"""Which indexes are searched and written, here and now.

The record decides. Searches ask the active index as this replica knows it; it is told of a switch at once, and looks
now and then in case it was not. Whoever writes asks the record each time: what is written must reach the active index
and the one that is building. A document is called indexed by a statement that waits for a switch under way
(IndexedDocuments.complete), so one that was written to the old index alone is never lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol, TypeVar

from services.knowledge.indexes.version import Index, IndexState, IndexVersion
from services.shared.errors import Reason, Unavailable

T = TypeVar("T")
CHANGED = "indexes"
"""The key under which a change of the indexes is told."""
_LOOK_S = 5.0


class IndexRecord(Protocol):
    """The record of the indexes."""

    async def live(self) -> Sequence[IndexVersion]:
        """The active one and the building one, if there is one; in the order of their ids. Raises Unavailable."""


class Changes(Protocol):
    """Tells when something may have changed."""

    def watch(self, key: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever what `key` names may have changed."""


class Indexes:
    """Implements search.SearchedIndexes; followed by `follow` in the background."""

    def __init__(self, record: IndexRecord, opened: Callable[[IndexVersion], Index], changes: Changes) -> None:
        self._record = record
        self._opened = opened
        self._changes = changes
        self._active: Index | None = None
        self._follows = False

    async def live(self) -> Sequence[Index]:
        """All that must hold a document, in the order of their ids. Raises Unavailable."""
        versions = await self._record.live()
        for version in versions:
            if version.state is IndexState.ACTIVE:
                self._active = self._opened(version)
        return [self._opened(version) for version in versions]

    async def ask(self, search: Callable[[Index], Awaitable[T]]) -> T:
        """What a search says of the active index; of the one that has taken its place, if it is gone.

        Raises Unavailable.
        """
        index = await self._known()
        try:
            return await search(index)
        except Unavailable:
            with suppress(Unavailable):
                await self.live()
            if (now := await self._known()).version.id == index.version.id:
                raise
            return await search(now)  # this replica had not been told

    async def follow(self) -> None:
        """Until cancelled: know which index is active."""
        self._follows = True
        with self._changes.watch(CHANGED) as changed:
            while True:
                changed.clear()
                with suppress(Unavailable):
                    await self.live()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await changed.wait()

    async def probe(self) -> None:
        """Raise unless the active index can be searched; when nothing is followed, nothing is asked."""
        if self._follows:
            await (await self._known()).rows.probe()

    async def _known(self) -> Index:
        if self._active is None:
            await self.live()
        if self._active is None:
            message = "Search can't answer just now: there is no index yet. Retry."
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, message)
        return self._active
