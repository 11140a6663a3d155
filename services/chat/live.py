"""A turn as the readers in this process see it.

A reader is a cursor, the number of the last entry it has. What comes next it takes from the entries kept here, all of
them where the turn runs and a short tail where it is followed, or, when it came late or fell behind the tail, page by
page from the log. So joining needs no hand-over, a reader misses and repeats nothing, and one that stops reading costs
a cursor and slows nobody.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol
from uuid import UUID

from services.chat.turn import CancellationCause, Cancelled, Completed, Entry, Failed, refusal_of
from services.shared.errors import Reason, Unavailable

TAIL_ENTRIES = 128
_PAGE_ENTRIES = 64
_LOOK_S = 1.0
_sequence = attrgetter("sequence")


class TurnLog(Protocol):
    """The numbered entries of turns, where every replica can read them. Each method raises Unavailable."""

    @property
    def incarnation(self) -> str | None:
        """Names the life of the store since it last started, which may have lost the ends of logs; None: not known."""

    async def begin(self, turn_id: UUID) -> None:
        """Get ready for the first entry of a turn."""

    async def append(
        self, turn_id: UUID, after: int, entries: Sequence[Entry], *, incarnation: str | None = None
    ) -> str | None:
        """Write entries where the log ends with the number `after`; done when they can be read.

        Of what stands before a Rewound, the log keeps the first entry alone. Raises LogBehind, or TurnTaken, and
        Unavailable also in another incarnation than the given one; returns the one that it was done in.
        """

    async def read(self, turn_id: UUID, after: int, *, wait_s: float = 0) -> list[Entry]:
        """The next entries after a number, a bounded page; waits up to `wait_s` for the first."""

    async def last(self, turn_id: UUID) -> Entry | None:
        """The last entry."""

    async def show_reader(self, turn_id: UUID) -> None:
        """Say that somebody reads the turn away from where it runs, for the next READER_SHOWN_S."""

    async def has_reader(self, turn_id: UUID) -> bool:
        """Whether somebody said so."""


READER_SHOWN_S = 3.0


class LogBehind(Exception):
    """The log lost entries: it ends with the number `last`."""

    def __init__(self, last: int) -> None:
        super().__init__(last)
        self.last = last


class TurnTaken(Exception):
    """A number of the turn's log was given out by somebody else, or the record names another run: it is not ours."""


@dataclass(frozen=True)
class Wish:
    """That a turn should stop here, since a time of the event loop. Without a cause, another replica goes on."""

    cause: CancellationCause | None
    time_s: float

    def cancelled(self, cause: CancellationCause) -> Cancelled:
        """The end of a turn whose model has just been freed."""
        after_s = asyncio.get_running_loop().time() - self.time_s
        return Cancelled(None, cause, max(0, round(after_s * 1000)))


class LiveTurn:
    """One turn and its readers in this process."""

    def __init__(self, turn_id: UUID, log: TurnLog, *, runs_here: bool, reader_grace_s: float) -> None:
        """`reader_grace_s` is how long the turn goes on here when nobody reads it, anywhere."""
        self.turn_id = turn_id
        self.runs_here = runs_here
        self.reader_grace_s = reader_grace_s
        self.last = 0
        self.readers = 0
        self.over = False
        self.shown_s = float("-inf")  # its age when other replicas were told that it is read here
        self.entries: list[Entry] = []  # all of them while the turn runs here, else a tail
        self.wish: Wish | None = None
        self._stopping = asyncio.Event()
        self._began_s = asyncio.get_running_loop().time()
        self._log = log
        self._absence: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._news = asyncio.Event()

    @property
    def refused(self) -> bool:
        """Whether the readers' calls end by an error."""
        return self._error is not None

    @property
    def age_s(self) -> float:
        """Seconds since the turn was asked for, or taken over, here."""
        return asyncio.get_running_loop().time() - self._began_s

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Hand entries to the readers."""
        self.entries.extend(entries)
        if not self.runs_here and len(self.entries) > 2 * TAIL_ENTRIES:
            del self.entries[:-TAIL_ENTRIES]
        self.last = entries[-1].sequence
        event = entries[-1].event
        if isinstance(event, Failed):
            self.refuse(refusal_of(event))
        elif isinstance(event, Completed | Cancelled):
            self._finish()
        self._tell()

    def run_here(self, entries: Sequence[Entry], return_s: float) -> None:
        """From now on the turn runs here; `entries` are all that there are. Readers get `return_s` to come back."""
        self.runs_here = True
        self.entries, self.last = [], 0
        if entries:
            self.deliver(entries)
        if not (self.readers or self.over):
            self._stop_unless_read(max(return_s, self.reader_grace_s))

    def refuse(self, error: Exception) -> None:
        """Nothing more comes: readers get `error` after the entries there are."""
        self._error = error
        self._finish()
        self._tell()

    def stop(self, cause: CancellationCause | None, ago_s: float = 0.0) -> None:
        """Ask that the turn stops here (see Wish); the first wish counts, but for a hand-over, which gives way."""
        if self.wish is None or self.wish.cause is None:
            self.wish = Wish(cause, asyncio.get_running_loop().time() - ago_s)
            self._stopping.set()

    async def stopping(self) -> Wish:
        """Wait for the wish that the turn stops."""
        await self._stopping.wait()
        assert self.wish
        return self.wish

    async def reaches(self, sequence: int, within_s: float) -> bool:
        """Whether so high a number was given out, or is within the time, as when the turn is about to be rewound."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.last < sequence and not self.over:
                    await self._news.wait()
        return self.last >= sequence

    def join(self) -> None:
        """One more reader."""
        self.readers += 1
        self._forget_absence()

    def leave(self) -> None:
        """One reader less."""
        self.readers -= 1
        if self.readers == 0 and self.runs_here and not self.over:
            self._stop_unless_read(self.reader_grace_s)

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
        entries = self.entries
        if entries and (self.runs_here or entries[0].sequence <= after + 1):
            at = bisect_right(entries, after, key=_sequence)
            return entries[at : at + _PAGE_ENTRIES]
        if page := await self._log.read(self.turn_id, after):
            return page
        raise Unavailable(Reason.TURN_LOG_UNAVAILABLE, "The beginning of this answer is lost; read the conversation.")

    def _finish(self) -> None:
        self.over = True
        self._forget_absence()

    def _forget_absence(self) -> None:
        if self._absence:
            self._absence.cancel()
            self._absence = None

    def _stop_unless_read(self, grace_s: float) -> None:
        self._forget_absence()
        self._absence = asyncio.create_task(self._stop_unread(grace_s))

    async def _stop_unread(self, grace_s: float) -> None:
        clock = asyncio.get_running_loop().time
        until_s = clock() + grace_s
        while True:
            await asyncio.sleep(min(max(0.0, until_s - clock()), _LOOK_S))
            if await self._is_read_elsewhere():
                until_s = clock() + max(grace_s, _LOOK_S)
            elif clock() >= until_s:
                break
        self.stop(CancellationCause.NO_READER)

    async def _is_read_elsewhere(self) -> bool:
        try:
            return await self._log.has_reader(self.turn_id)
        except Unavailable:
            return True  # nobody knows: the turn's deadline bounds what that costs

    def _tell(self) -> None:
        # Wakes those who wait now; whoever comes later looks before it waits.
        self._news.set()
        self._news.clear()
