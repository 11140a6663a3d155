"""What another replica writes of a turn, for its readers in this process.

The log says how a turn goes on, the record whether it has ended. Where the log lacks the last event, the record's end
takes its place; where it still holds the end of a try that failed, though the turn was tried again, the rest is
waited for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol
from uuid import UUID

from services.chat import notes
from services.chat.journal import Encode
from services.chat.live import LiveTurn, TurnLog
from services.chat.turn import (
    Asker,
    Cancelled,
    Completed,
    End,
    Entry,
    Event,
    Failed,
    Started,
    TurnRecord,
    Usage,
    turn_not_found,
)
from services.shared.errors import Invalid, Reason, WrongState

LOOK_AGAIN_S = 1.0  # how long a silent log is waited on before the record is asked
CATCHING_UP_S = 3.0  # how long a reader who saw more than there is waits for it


class FoundTurns(Protocol):
    """What the record knows."""

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        """What is known of this asker's turn. Raises Unavailable."""


class Follower:
    """Follows the turns that run elsewhere, and those that have ended."""

    def __init__(self, records: FoundTurns, log: TurnLog, encode: Encode) -> None:
        self._records = records
        self._log = log
        self._encode = encode
        self._ended: set[UUID] = set()  # turns that the record ended: nothing is waited for

    async def check(self, asker: Asker, turn_id: UUID, after: int) -> None:
        """Raise unless the log has all that a reader after this number needs, or will have it."""
        record = await self._record(asker, turn_id)
        last = await self._log.last(turn_id)
        number = last.sequence if last else 0
        if record.end:
            if last is None or not isinstance(last.event, Usage | Completed | Failed | Cancelled):
                raise _not_resumable()
            if after > number + isinstance(last.event, Usage):  # the end may be known to the record alone
                raise beyond(number)
            self._ended.add(turn_id)
        elif after > number and not await self._log.read(turn_id, after - 1, wait_s=CATCHING_UP_S):
            raise beyond(number)

    async def follow(self, asker: Asker, live: LiveTurn) -> None:
        """Hand the next page to the readers, or nothing if nothing comes for a while."""
        await self._show_reader(live)
        entries = await self._next(live.turn_id, live.last)
        if not entries:
            record = await self._record(asker, live.turn_id)
            if record.end:
                entries = await self._log.read(live.turn_id, live.last) or self._remainder(live, record)
        elif isinstance(entries[-1].event, Failed):
            entries = await self._as_recorded(asker, live, entries)
        fresh = [entry for entry in entries if entry.sequence > live.last]
        if fresh and not live.runs_here:  # it may have been taken over meanwhile
            live.deliver(fresh)

    def forget(self, turn_id: UUID) -> None:
        """Nobody here follows the turn any more."""
        self._ended.discard(turn_id)

    async def _record(self, asker: Asker, turn_id: UUID) -> TurnRecord:
        record = await self._records.find(asker, turn_id)
        if record is None:
            raise turn_not_found()
        if record.end is None:  # it may have failed, and be tried again
            self._ended.discard(turn_id)
        return record

    async def _next(self, turn_id: UUID, after: int) -> list[Entry]:
        return await self._log.read(turn_id, after, wait_s=0 if turn_id in self._ended else LOOK_AGAIN_S)

    async def _show_reader(self, live: LiveTurn) -> None:
        if live.age_s - live.shown_s >= LOOK_AGAIN_S:
            await self._log.show_reader(live.turn_id)
            live.shown_s = live.age_s

    async def _as_recorded(self, asker: Asker, live: LiveTurn, entries: Sequence[Entry]) -> list[Entry]:
        """Without the end of a try that failed, when it was not the last one."""
        *entries, failed = entries
        record = await self._record(asker, live.turn_id)
        if record.end == failed.event:
            return [*entries, failed]
        entries += await self._next(live.turn_id, failed.sequence)
        return entries or (self._remainder(live, record) if record.end else [])

    def _remainder(self, live: LiveTurn, record: TurnRecord) -> list[Entry]:
        """The end of a turn that its log lacks, from its record; the words stand in the conversation."""
        assert record.end
        events: list[Event] = [record.end]
        if live.last == 0:
            events = [Started(record.conversation_id, record.model, record.create_time), record.usage, record.end]
        elif not _announces(live.entries[-1], record.end):
            raise _not_resumable()
        return [
            Entry(sequence, event, self._encode(live.turn_id, sequence, event))
            for sequence, event in enumerate(events, live.last + 1)
        ]


def beyond(last: int) -> Invalid:
    """The refusal for a number that was not given out; `last` is the last one that was."""
    return Invalid(Reason.SEQUENCE_BEYOND_LOG, f"The turn has {last} events: resume from 0.", last_sequence=last)


def _not_resumable() -> WrongState:
    return WrongState(Reason.TURN_NOT_RESUMABLE, "The turn's events are gone; the conversation has the answer.")


def _announces(entry: Entry, end: End) -> bool:
    """Whether the turn was about to end just so after this entry, which may be of a try before the last one."""
    if not isinstance(entry.event, Usage) or not entry.note:
        return False
    announced = notes.end_in(entry.note)
    if isinstance(announced, Failed) or isinstance(end, Failed):
        return announced == end
    return replace(announced, message_id=end.message_id) == end
