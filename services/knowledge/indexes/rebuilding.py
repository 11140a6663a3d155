"""Asking for a new index, and following it; the work is done by rebuild.py, on whichever replica has it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from services.knowledge.indexes.live import CHANGED, Changes, IndexRecord
from services.knowledge.indexes.version import Holding, IndexState, IndexVersion
from services.shared.errors import Conflict, Reason, WrongState

_LOOK_S = 0.5

Progress = tuple[IndexVersion, Holding]


class Rebuilds(IndexRecord, Protocol):
    """The record of the indexes. Every method raises Unavailable."""

    async def find_version(self, index_id: int) -> IndexVersion | None: ...

    async def begin(
        self, request_id: UUID, model: str, dimensions: int, from_originals: bool = False
    ) -> IndexVersion | None:
        """A new index to build, or the one that the same request began; None if another one is being built."""

    async def cancel(self) -> None:
        """Retire the index that is being built, if there is one."""

    async def held(self, index_id: int) -> Holding: ...


class Models(Protocol):
    """The model server."""

    async def dimensions(self, model: str) -> int:
        """Numbers in a vector of this embedding model. Raises Invalid if it is not served, and Unavailable."""


class Rebuilding:
    """What an operator asks for."""

    def __init__(self, record: Rebuilds, models: Models, changes: Changes) -> None:
        self._record = record
        self._models = models
        self._changes = changes

    async def indexes(self) -> Sequence[Progress]:
        """The active one and the one that is being built, if there is one. Raises Unavailable."""
        return [(version, await self._record.held(version.id)) for version in await self._record.live()]

    async def rebuild(self, request_id: UUID, model: str, from_originals: bool = False) -> AsyncIterator[Progress]:
        """Begin and follow until the new index is active. `model` may be empty: that of the active one.

        Raises WrongState, Invalid, Conflict when it is cancelled, and Unavailable.
        """
        model = model or next(v.embedding_model for v in await self._record.live() if v.state is IndexState.ACTIVE)
        dimensions = await self._models.dimensions(model)
        version = await self._record.begin(request_id, model, dimensions, from_originals)
        if version is None:
            raise await self._rebuilding()
        with self._changes.watch(CHANGED) as changed:
            while version:
                changed.clear()
                if version.state is not IndexState.RETIRED:
                    yield version, await self._record.held(version.id)
                if version.state is IndexState.ACTIVE:
                    return
                if version.state is IndexState.RETIRED:
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await changed.wait()
                version = await self._record.find_version(version.id)
        message = "The rebuild was cancelled; searches ask the index that they asked before."
        raise Conflict(Reason.REBUILD_CANCELLED, message)

    async def cancel(self) -> None:
        """End the rebuild that is running. Raises Unavailable."""
        await self._record.cancel()

    async def _rebuilding(self) -> WrongState:
        building = [version for version in await self._record.live() if version.state is IndexState.BUILDING]
        model = building[0].embedding_model if building else ""
        message = "An index is being built already: let it end, or cancel it."
        return WrongState(Reason.INDEX_REBUILDING, message, embedding_model=model)
