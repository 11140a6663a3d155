"""The pen of the replica that runs a turn: numbers events, appends them to the log, then shows them to readers.

Nothing is shown before the log has it, or before the record says that the end of the log may be missing. So whoever
takes the turn over knows whether readers may have seen more than the log holds; then it must rewind. While the log
can't be reached the turn goes on from memory, and all that is missing is written as soon as it is back. Entries keep
the bytes and the number that they were given first, so writing one again never makes two.

A store that was started anew may have lost what kept an older run out: before it is written to, the record is asked
whose the turn is. And a run that goes on where an older one stopped owns the next number only once the log has it: if
it can't write there at once, it must rewind.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from services.chat.live import LiveTurn, LogBehind, TurnLog, TurnTaken
from services.chat.turn import Entry, Event, Turn
from services.shared.errors import Unavailable

REWOUND_STEP = 1_000_000  # more entries than a run can write
_AGAIN_S = 0.25
Encode = Callable[[UUID, int, Event], bytes]


class LogMarks(Protocol):
    """Where the record keeps which life of the store has the whole log of a running turn."""

    async def mark_log(self, turn: Turn, incarnation: str | None) -> bool:
        """False when the turn is not this run's any more. Raises Unavailable."""


class Journal:
    """Writes one turn while this replica runs it: one writer at a time."""

    def __init__(
        self, turn: Turn, live: LiveTurn, log: TurnLog, marks: LogMarks, encode: Encode, *, alone: bool
    ) -> None:
        """`live` keeps all entries of the turn so far. `alone`: no other run gives out the numbers of this one."""
        self._turn = turn
        self._live = live
        self._log = log
        self._marks = marks
        self._encode = encode
        self._marked = turn.log_incarnation
        self._alone = alone
        self._behind = False
        self._healing: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._lost: TurnTaken | None = None

    @property
    def behind(self) -> bool:
        """Whether the log lacks entries, or did when it was last looked at."""
        return self._behind

    async def begin(self) -> None:
        """Get ready for the first event; without the log if it can't be reached."""
        try:
            await self._log.begin(self._turn.id)
        except Unavailable:
            await self._admit_behind()

    async def write(self, *events: Event, note: str = "", sequence: int | None = None) -> None:
        """Number events, from `sequence` if given, log them, show them. Raises TurnTaken."""
        async with self._writing:
            if self._lost:
                raise self._lost
            after = self._live.last
            entries = self._numbered(events, sequence or after + 1, note)
            if not self._behind:
                await self._log_or_admit(after, entries)
                self._alone = True
            self._live.deliver(entries)

    async def end(self, *events: Event) -> None:
        """`write` the last events; readers here get them even when the log does not."""
        async with self._writing:
            after = self._live.last
            entries = self._numbered(events, after + 1, "")
            if not self._behind:
                try:
                    await self._append(after, entries, self._marked)
                except Unavailable:
                    self._fall_behind()
                except TurnTaken:  # the record knows the end, and everybody gets it from there
                    pass
            self._live.deliver(entries)

    async def close(self, patience_s: float) -> None:
        """Give the log a last chance to get what is missing."""
        if self._healing:
            await asyncio.wait((self._healing,), timeout=patience_s)
            self._healing.cancel()
            await asyncio.wait((self._healing,))

    def _numbered(self, events: Sequence[Event], first: int, note: str) -> list[Entry]:
        return [
            Entry(sequence, event, self._encode(self._turn.id, sequence, event), note)
            for sequence, event in enumerate(events, first)
        ]

    async def _log_or_admit(self, after: int, entries: Sequence[Entry]) -> None:
        while True:
            try:
                if self._log.incarnation != self._marked:
                    await self._mark_alone()
                await self._mark(await self._append(after, entries, self._marked))
            except Unavailable:
                with suppress(Unavailable):
                    await self._admit_behind()
                    return
                await asyncio.sleep(_AGAIN_S)  # neither log nor record: nothing may be shown
            else:
                return

    async def _append(self, after: int, entries: Sequence[Entry], incarnation: str | None) -> str | None:
        turn_id = self._turn.id
        try:
            return await self._log.append(turn_id, after, entries, incarnation=incarnation)
        except LogBehind as behind:
            missing = [entry for entry in self._live.entries if entry.sequence > behind.last]
            return await self._log.append(turn_id, behind.last, [*missing, *entries], incarnation=incarnation)

    async def _mark(self, incarnation: str | None) -> None:
        if incarnation != self._marked:
            if not await self._marks.mark_log(self._turn, incarnation):
                raise TurnTaken(str(self._turn.id))
            self._marked = incarnation

    async def _mark_alone(self) -> None:
        if not self._alone:
            raise TurnTaken(str(self._turn.id))
        await self._mark(None)

    async def _admit_behind(self) -> None:
        await self._mark_alone()
        self._fall_behind()

    def _fall_behind(self) -> None:
        self._behind = True
        self._healing = asyncio.create_task(self._heal())

    async def _heal(self) -> None:
        while self._behind:
            await asyncio.sleep(_AGAIN_S)
            try:
                await self._catch_up()
                async with self._writing:
                    incarnation = await self._catch_up()
                    if not self._live.over:
                        await self._mark(incarnation)
                    self._behind = False
            except Unavailable:
                continue
            except TurnTaken as taken:
                self._lost = taken
                return

    async def _catch_up(self) -> str | None:
        incarnation = self._log.incarnation
        last = await self._log.last(self._turn.id)
        number = last.sequence if last else 0
        if missing := [entry for entry in self._live.entries if entry.sequence > number]:
            return await self._append(number, missing, None)
        return incarnation
