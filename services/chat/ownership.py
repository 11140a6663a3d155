"""Which replica runs which turn.

Each replica holds a lease in the record and renews it a few times within its length. A turn whose replica's lease is
over belongs to nobody: the replica that claims it first, under a new run id, goes on with it. A replica that was cut
off or stood still only renews at first, so that after an outage of the record nobody takes what is still being run.
It may still be running turns that were taken from it: the log refuses its next entry.

Knobs: a turn of a killed replica waits for the rest of the lease and at most one beat. A shorter lease takes turns from
replicas that are only slow, which costs work but harms nothing.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol
from uuid import UUID

from services.chat.turn import CancellationCause, Turn
from services.chat.turns import Turns
from services.shared.errors import Unavailable

_log = logging.getLogger("parley.chat")
KEY = "turns"  # wakes every replica: a turn is to be stopped, or has lost its owner
_AT_ONCE = 32  # turns that are claimed together
_HANDING_OVER_S = 2.0  # the part of the stop's grace in which turns are stopped, or handed over


class Leases(Protocol):
    """The record of who runs what, as this replica sees it. Each method raises Unavailable."""

    async def renew(self, lease_s: float) -> None:
        """This replica lives for so long from now."""

    async def take_over(self, runs: Collection[UUID], limit: int) -> Sequence[Turn]:
        """Claim running turns that nobody runs: of dead replicas, and our own that are not among `runs`."""

    async def wishes(self) -> Sequence[tuple[UUID, float]]:
        """Our turns that somebody wants to be cancelled, and since how many seconds."""

    async def has_others(self) -> bool:
        """Whether another replica is alive."""

    async def retire(self) -> None:
        """End our lease now, and say so."""


class Watch(Protocol):
    """Wakes those who wait for a change."""

    def watch(self, key: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever `key` may have changed."""


class Ownership:
    """Keeps this replica's lease, and brings to `turns` what the record says about them."""

    def __init__(self, leases: Leases, watch: Watch, turns: Turns, *, lease_s: float, beat_s: float) -> None:
        self._leases = leases
        self._watch = watch
        self._turns = turns
        self._lease_s = lease_s
        self._beat_s = beat_s
        self._renewed_s = float("-inf")
        self._stopping = False

    async def run(self) -> None:
        """Beat for ever."""
        with self._watch.watch(KEY) as woken:
            while True:
                woken.clear()
                with suppress(Unavailable):
                    await self.beat()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._beat_s):
                        await woken.wait()

    async def beat(self) -> None:
        """Renew the lease, take what nobody runs, learn what is to stop."""
        await self._heed_wishes()  # first: somebody waits for these
        now_s = asyncio.get_running_loop().time()
        unbroken = now_s - self._renewed_s < self._lease_s
        if not self._stopping:
            await self._leases.renew(self._lease_s)
            self._renewed_s = now_s
        if unbroken and not self._stopping:
            taken = await self._leases.take_over(self._turns.runs, _AT_ONCE)
            for turn in taken:
                _log.info("took a turn over", extra={"facts": {"turn_id": turn.id, "run": turn.runs}})
                self._turns.go_on(turn)
            if taken:
                await self._heed_wishes()

    async def drain(self, grace_s: float) -> None:
        """Let running turns finish, then hand the others over while their readers are still there to hear of it.

        Where no other replica lives, they are stopped and their words saved.
        """
        await self._turns.finished(max(0.0, grace_s - _HANDING_OVER_S))
        self._stopping = True
        self._turns.stop_all(None if await self._has_others() else CancellationCause.STOPPED)
        await self._turns.finished(_HANDING_OVER_S)
        with suppress(Unavailable):
            await self._leases.retire()
        self._turns.send_on()

    async def _heed_wishes(self) -> None:
        for turn_id, ago_s in await self._leases.wishes():
            self._turns.stop(turn_id, CancellationCause.REQUESTED, ago_s)

    async def _has_others(self) -> bool:
        try:
            return await self._leases.has_others()
        except Unavailable:
            return True  # whoever lives once the record is back goes on
