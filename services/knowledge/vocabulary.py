"""How rare each term is in an organisation: what a question's terms are worth.

Rarity is taken from a sample of the organisation's passages, chosen by their ids, which follow from nothing in them.
It is held in memory and renewed behind the scenes, the later the larger the sample is: a new organisation's first
documents count at once, a full one changes slowly. The first search after a start waits for its sample, some 0.2 s.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from services.knowledge.lexical import Rarity, rarity
from services.knowledge.passages import Passage

SAMPLE = 500
"""Passages. Twice as many change nDCG by 0.002 at most (docs/retrieval.md)."""
_ORGANISATIONS = 64
"""Held in memory, at some 2 MB each."""
_SECONDS_PER_PASSAGE = 1.0


class PassageSample(Protocol):
    """The record of the passages."""

    async def sample(self, tenant_id: UUID, limit: int) -> Sequence[Passage]:
        """Some of the organisation's passages, whatever they say; all if they are not more than `limit`."""


class Vocabulary:
    """Implements search.Rarities."""

    def __init__(self, passages: PassageSample, now: Callable[[], float] = time.monotonic) -> None:
        self._passages = passages
        self._now = now
        self._known: OrderedDict[UUID, tuple[Rarity, float]] = OrderedDict()
        self._reading: dict[UUID, asyncio.Task[Rarity]] = {}

    async def rarity(self, tenant_id: UUID) -> Rarity:
        """Of the terms in the organisation's passages, now or a while ago. Raises Unavailable."""
        known, read_s = self._known.get(tenant_id, (None, 0.0))
        if known is None:
            return await asyncio.shield(self._read(tenant_id))
        self._known.move_to_end(tenant_id)
        if self._now() - read_s > 1 + known.passages * _SECONDS_PER_PASSAGE:
            self._read(tenant_id)
        return known

    def _read(self, tenant_id: UUID) -> asyncio.Task[Rarity]:
        if (reading := self._reading.get(tenant_id)) is None:
            reading = self._reading[tenant_id] = asyncio.create_task(self._sampled(tenant_id))
            reading.add_done_callback(lambda done: self._done(tenant_id, done))
        return reading

    def _done(self, tenant_id: UUID, reading: asyncio.Task[Rarity]) -> None:
        del self._reading[tenant_id]
        if not reading.cancelled():
            reading.exception()  # a renewal that fails is tried again by the next search

    async def _sampled(self, tenant_id: UUID) -> Rarity:
        read_s = self._now()
        passages = await self._passages.sample(tenant_id, SAMPLE)
        found = await asyncio.to_thread(rarity, [passage.searchable_text for passage in passages])
        self._known[tenant_id] = (found, read_s)
        self._known.move_to_end(tenant_id)
        while len(self._known) > _ORGANISATIONS:
            self._known.popitem(last=False)
        return found
