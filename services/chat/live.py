"""A turn as this process delivers it: numbered entries, appended to the log first, then handed to every reader.

A reader is a cursor, the number of the last entry it has. What comes next it takes from the short tail kept here, or,
when it came late or fell behind the tail, page by page from the log. So joining needs no hand-over, a reader misses
and repeats nothing, and one that stops reading costs a cursor and slows nobody.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from services.chat.turn import Cancelled, Completed, Entry, Event, Failed, refusal_of
from services.shared.errors import Reason, Unavailable

TAIL_ENTRIES = 128
Encode = Callable[[UUID, int, Event], bytes]


class TurnLog(Protocol):
    """The numbered entries of turns, where every replica can read them."""

    async def begin(self, turn_id: UUID) -> None:
        """Make the log empty. Raises Unavailable."""

    async def append(self, turn_id: UUID, entries: Sequence[Entry]) -> None:
        """Write entries; done when they can be read. Raises Unavailable, or TurnTaken."""

    async def read(self, turn_id: UUID, after: int, *, wait_s: float = 0) -> list[Entry]:
        """The next entries after a number, a bounded page; waits up to `wait_s` for the first. Raises Unavailable."""


class TurnTaken(Exception):
    """A number of the turn's log was given out by somebody else: the turn is no longer ours."""


class LiveTurn:
    """One turn and its readers in this process. `stop` is set when the turn is to end before its answer does."""

    def __init__(self, turn_id: UUID, digest: bytes, log: TurnLog, encode: Encode, reader_grace_s: float) -> None:
        self.turn_id = turn_id
        self.digest = digest
        self.stop = asyncio.Event()
        self.last = 0
        self.readers = 0
        self.over = False
        self._began_s = asyncio.get_running_loop().time()
        self._log = log
        self._encode = encode
        self._reader_grace_s = reader_grace_s
        self._leaving: asyncio.TimerHandle | None = None
        self._tail: deque[Entry] = deque(maxlen=TAIL_ENTRIES)
        self._error: Exception | None = None
        self._news = asyncio.Event()

    @property
    def age_s(self) -> float:
        """Seconds since the turn was asked for."""
        return asyncio.get_running_loop().time() - self._began_s

    async def write(self, *events: Event) -> None:
        """Number events, append them, deliver them. One writer at a time. Raises what TurnLog.append raises."""
        entries = self.numbered(events)
        await self._log.append(self.turn_id, entries)
        self.deliver(entries)

    async def end(self, *events: Event) -> None:
        """`write` the last events; readers here get them even when the log does not."""
        entries = self.numbered(events)
        with suppress(Unavailable):  # the record knows the end already
            await self._log.append(self.turn_id, entries)
        self.deliver(entries)

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Hand entries that are in the log to the readers."""
        self._tail.extend(entries)
        self.last = entries[-1].sequence
        event = entries[-1].event
        if isinstance(event, Failed):
            self.refuse(refusal_of(event))
        elif isinstance(event, Completed | Cancelled):
            self.over = True
        self._tell()

    def refuse(self, error: Exception) -> None:
        """Nothing more comes: readers get `error` after the entries there are."""
        self.over = True
        self._error = error
        self._tell()

    def join(self) -> None:
        """One more reader."""
        self.readers += 1
        if self._leaving:
            self._leaving.cancel()
            self._leaving = None

    def leave(self) -> None:
        """One reader less. Without any for the grace time, the turn is to stop."""
        self.readers -= 1
        if self.readers == 0 and not self.over:
            self._leaving = asyncio.get_running_loop().call_later(self._reader_grace_s, self.stop.set)

    async def follow(self, after: int = 0) -> AsyncIterator[Entry]:
        """Every entry after a number, as it comes, to the last; then raises the refusal of a turn that failed."""
        while True:
            while after < self.last:
                for entry in await self._next(after):
                    yield entry
                    after = entry.sequence
            if self.over:
                break
            await self._news.wait()
        if self._error:
            raise self._error

    async def _next(self, after: int) -> Sequence[Entry]:
        if self._tail[0].sequence <= after + 1:
            return (self._tail[after - self.last],)
        if page := await self._log.read(self.turn_id, after):
            return page
        raise Unavailable(Reason.TURN_LOG_UNAVAILABLE, "The beginning of this answer is lost; read the conversation.")

    def numbered(self, events: Sequence[Event]) -> list[Entry]:
        """Entries for the events that come next."""
        return [
            Entry(sequence, event, self._encode(self.turn_id, sequence, event))
            for sequence, event in enumerate(events, self.last + 1)
        ]

    def _tell(self) -> None:
        # Wakes those who wait now; whoever comes later looks before it waits.
        self._news.set()
        self._news.clear()
