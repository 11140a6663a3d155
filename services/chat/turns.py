"""All turns of this process: who asks first runs the turn, who repeats joins it, whoever else reads follows its log.

A request is claimed in the record, so that one replica answers it however many are asked. All readers of a turn in
this process share one LiveTurn. It is fed by the run of the turn, or, where another replica runs it, by one task that
follows the log. A turn that is taken over changes from the second to the first, one that is lost the other way.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Set
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID, uuid4

from services.chat.answer import Means
from services.chat.journal import Encode
from services.chat.live import LiveTurn, TurnLog
from services.chat.runs import RunRecords, Runs
from services.chat.turn import (
    Asker,
    CancellationCause,
    Cancelled,
    Completed,
    Entry,
    Event,
    Failed,
    Question,
    Started,
    Turn,
    TurnRecord,
    Usage,
)
from services.shared.errors import AlreadyExists, Exhausted, Invalid, NotFound, Reason, Unavailable, WrongState

_LOOK_AGAIN_S = 1.0  # how long a silent log is waited on before the record is asked
_CATCHING_UP_S = 3.0  # how long a reader who saw more than the log holds waits for the log
_RETRY_AFTER_S = 5.0
# So many turns are opened at once, in the order in which they came: when hundreds come together, the first ones need
# not wait for all. One that takes longer than this, because a peer is slow, lets the next one in.
_OPENING = 8
_OPENING_S = 0.25


@dataclass(frozen=True)
class Claim:
    """Whose turn a request has become."""

    turn_id: UUID
    ours: bool  # this claim made the turn, or made a failed one start again
    same_content: bool


class TurnRecords(RunRecords, Protocol):
    """The record of turns. Each method raises Unavailable when it can't be reached."""

    async def claim(self, turn: Turn, digest: bytes, open_turns: int) -> Claim | None:
        """Make the turn of a request, unless it has one. One that failed before anything was saved starts again.

        None when the user has `open_turns` running ones.
        """

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        """What is known of this asker's turn."""

    async def request_cancel(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        """Say to whoever runs the turn that it is to stop; the turn as it then stands."""


class Watch(Protocol):
    """Wakes those who wait for a change."""

    def watch(self, key: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever `key` may have changed."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How this installation answers."""

    models: tuple[str, ...]  # the first is the default
    deadline_s: float
    reader_grace_s: float  # how long a turn runs on without any reader, unless the question says
    open_turns: int  # of one user, over all replicas
    open_readers: int  # of one user, in this process


class Reading:
    """One call that reads a turn."""

    def __init__(
        self, live: LiveTurn, after: int, user: tuple[UUID, UUID], readings: Counter[tuple[UUID, UUID]]
    ) -> None:
        self.live = live
        self._after = after
        self._user = user
        self._readings = readings
        live.join()
        readings[user] += 1

    def follow(self) -> AsyncIterator[Entry]:
        """See LiveTurn.follow."""
        return self.live.follow(self._after)

    def leave(self) -> None:
        """The call has ended."""
        self.live.leave()
        self._readings[self._user] -= 1
        if not self._readings[self._user]:
            del self._readings[self._user]


class Turns:
    """Starts, joins, resumes, cancels and continues turns."""

    def __init__(
        self, records: TurnRecords, log: TurnLog, watch: Watch, encode: Encode, means: Means, rules: Rules
    ) -> None:
        self._records = records
        self._log = log
        self._watch = watch
        self._encode = encode
        self._means = means
        self._rules = rules
        self._asked: dict[tuple[UUID, UUID, UUID], tuple[LiveTurn, bytes]] = {}  # by request
        self._live: dict[tuple[UUID, UUID, UUID], LiveTurn] = {}  # by user and turn
        self._opening = asyncio.Semaphore(_OPENING)
        self._runs = Runs(records, log, encode, means)
        self._readings: Counter[tuple[UUID, UUID]] = Counter()
        self._ended: set[UUID] = set()  # turns followed here that the record ended: nothing is waited for
        self._tasks: dict[asyncio.Task[None], LiveTurn] = {}

    @property
    def open_count(self) -> int:
        """Turns with a reader or a run here."""
        return len({id(live) for live in self._live.values()} | {id(live) for live, _ in self._asked.values()})

    @property
    def runs(self) -> Set[UUID]:
        """The ids of the runs here."""
        return self._runs.ids

    def start(self, asker: Asker, question: Question) -> Reading:
        """Read the turn of this request from its first event; the caller must `leave` it. Raises Invalid, Exhausted.

        Refusals that need the record or the conversation come out of `follow`.
        """
        model = self._model(question)
        self._means.prompts.check(question)
        self._check_readers(asker)
        key = (asker.tenant_id, asker.user_id, question.request_id)
        digest = question.digest()
        if key in self._asked:
            live, asked = self._asked[key]
            if asked != digest:
                raise _reused()
        else:
            turn = Turn(
                id=uuid4(),
                run_id=uuid4(),
                asker=asker,
                question=question,
                model=model,
                time_left_s=self._rules.deadline_s,
                log_incarnation=self._log.incarnation,
            )
            live = self._new(turn.id, question, runs_here=True)
            self._asked[key] = live, digest
            self._spawn(live, self._serve_request(key, turn, live, digest))
        return self._reading(asker, live, 0)

    async def resume(self, asker: Asker, turn_id: UUID, after: int) -> Reading:
        """Read a turn after a number; the caller must `leave` it. Raises NotFound, Invalid, WrongState, Unavailable."""
        self._check_readers(asker)
        key = (asker.tenant_id, asker.user_id, turn_id)
        live = self._live.get(key)
        if live is None or not live.runs_here:
            record = await self._records.find(asker, turn_id)
            if record is None:
                raise turn_not_found()
            await self._check_log(record, after)
            if record.end:
                self._ended.add(turn_id)
            live = self._live.get(key)
        elif after > live.last:
            raise _beyond(live.last)
        if live is None:
            live = self._live[key] = self._new(turn_id, None, runs_here=False)
            self._spawn(live, self._serve(key, asker, live))
        return self._reading(asker, live, after)

    async def cancel(self, asker: Asker, turn_id: UUID) -> TurnRecord:
        """The turn after its end, which this brings about. Raises NotFound."""
        with self._watch.watch(str(turn_id)) as woken:
            record = await self._records.request_cancel(asker, turn_id)
            while record and record.end is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await woken.wait()
                woken.clear()
                record = await self._records.find(asker, turn_id)
        if record is None:
            raise turn_not_found()
        return record

    def go_on(self, turn: Turn) -> None:
        """Run a turn that was taken over."""
        key = (turn.asker.tenant_id, turn.asker.user_id, turn.id)
        live = self._live.get(key)
        if live is None:
            live = self._live[key] = self._new(turn.id, turn.question, runs_here=False)
            self._spawn(live, self._serve(key, turn.asker, live))
        live.reader_grace_s = self._grace_s(turn.question)
        self._runs.begin(turn, live, taken_over=True)

    def stop(self, turn_id: UUID, cause: CancellationCause, ago_s: float) -> None:
        """Stop a turn that runs here, as somebody wished so long ago."""
        for live in self._live.values():
            if live.turn_id == turn_id:
                live.stop(cause, ago_s)

    def stop_all(self, cause: CancellationCause | None) -> None:
        """Stop all turns that run here; without a cause, another replica goes on with them."""
        for live in [*self._live.values(), *(live for live, _ in self._asked.values())]:
            if live.runs_here:
                live.stop(cause)

    def send_on(self) -> None:
        """End the calls of all readers who are still here: they follow their turns at another replica."""
        for live in self._live.values():
            if not live.over:
                live.refuse(Unavailable(Reason.SERVICE_UNAVAILABLE, "This replica stops: resume the turn."))

    async def finished(self, within_s: float) -> None:
        """Wait until no turn runs here, at most so long."""
        if running := [task for task, live in self._tasks.items() if live.runs_here]:
            await asyncio.wait(running, timeout=within_s)

    def _new(self, turn_id: UUID, question: Question | None, *, runs_here: bool) -> LiveTurn:
        return LiveTurn(turn_id, self._log, runs_here=runs_here, reader_grace_s=self._grace_s(question))

    def _grace_s(self, question: Question | None) -> float:
        grace_s = question.reader_grace_s if question else None
        return self._rules.reader_grace_s if grace_s is None else grace_s

    def _spawn(self, live: LiveTurn, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = live
        task.add_done_callback(self._tasks.pop)

    def _model(self, question: Question) -> str:
        models = self._rules.models
        model = question.model or models[0]
        if model not in models:
            message = f"This installation offers {', '.join(models)}."
            raise Invalid(Reason.MODEL_UNKNOWN, message, models=",".join(models))
        return model

    def _check_readers(self, asker: Asker) -> None:
        limit = self._rules.open_readers
        if self._readings[asker.tenant_id, asker.user_id] >= limit:
            message = f"You have {limit} open streams: end one."
            raise Exhausted(Reason.TOO_MANY_READERS, message, retry_after_s=_RETRY_AFTER_S, limit=limit)

    async def _check_log(self, record: TurnRecord, after: int) -> None:
        """Raise unless the log has all that a reader after this number needs, or will have it."""
        last = await self._log.last(record.id)
        number = last.sequence if last else 0
        if record.end:
            if last is None or not isinstance(last.event, Usage | Completed | Failed | Cancelled):
                raise _not_resumable()
            if after > number + isinstance(last.event, Usage):  # the end may be known to the record alone
                raise _beyond(number)
        elif after > number and not await self._log.read(record.id, after - 1, wait_s=_CATCHING_UP_S):
            raise _beyond(number)

    async def _serve_request(self, request: tuple[UUID, UUID, UUID], turn: Turn, live: LiveTurn, digest: bytes) -> None:
        self._runs.ids.add(turn.run_id)
        try:
            async with self._opening:
                claim = await self._claim(turn, digest)
                turn = replace(turn, id=claim.turn_id)
                live.turn_id = turn.id
                live.runs_here = claim.ours
                key = (turn.asker.tenant_id, turn.asker.user_id, turn.id)
                if claim.ours:
                    self._live[key] = live
                    self._runs.begin(turn, live, taken_over=False)
                    await live.begun(_OPENING_S)
                else:
                    self._live.setdefault(key, live)
                    self._runs.ids.discard(turn.run_id)
            await self._serve(key, turn.asker, live)
        except Exception as error:  # a refusal or a defect: the readers' calls end by it
            self._runs.ids.discard(turn.run_id)
            live.refuse(error)
        finally:
            del self._asked[request]

    async def _claim(self, turn: Turn, digest: bytes) -> Claim:
        limit = self._rules.open_turns
        claim = await self._records.claim(turn, digest, limit)
        if claim is None:
            message = f"You have {limit} running turns: let one end."
            raise Exhausted(Reason.TOO_MANY_TURNS, message, retry_after_s=_RETRY_AFTER_S, limit=limit)
        if not claim.same_content:
            raise _reused()
        return claim

    async def _serve(self, key: tuple[UUID, UUID, UUID], asker: Asker, live: LiveTurn) -> None:
        """Feed a turn's readers until its end, or until there are none."""
        try:
            while not live.over:
                if (fed := self._live.setdefault(key, live)) is not live:
                    if not live.readers:
                        break
                    await self._follow_beside(fed, live)
                elif not await self._runs.over(live.turn_id):
                    if not live.readers:
                        break
                    await self._follow_elsewhere(asker, live)
        except Exception as error:  # a refusal or a defect: the readers' calls end by it
            live.refuse(error)
        finally:
            # Nothing is awaited since the last look at the readers, so nobody joins a turn that is not served.
            if self._live.get(key) is live:
                del self._live[key]
                self._ended.discard(live.turn_id)

    async def _follow_beside(self, fed: LiveTurn, live: LiveTurn) -> None:
        """What comes to `fed`, to the readers of `live` too: they asked before it was known to be the same turn."""
        fed.join()
        try:
            async for entry in fed.follow(live.last):
                live.deliver([entry])
                if not live.readers:
                    break
        finally:
            fed.leave()

    async def _follow_elsewhere(self, asker: Asker, live: LiveTurn) -> None:
        """The next page of what another replica writes, to the readers here."""
        await self._show_reader(live)
        wait_s = 0 if live.turn_id in self._ended else _LOOK_AGAIN_S
        entries = await self._log.read(live.turn_id, live.last, wait_s=wait_s)
        if not entries:
            record = await self._records.find(asker, live.turn_id)
            if record is None:
                raise turn_not_found()
            if record.end:
                entries = await self._log.read(live.turn_id, live.last) or self._remainder(live, record)
        fresh = [entry for entry in entries if entry.sequence > live.last]
        if fresh and not live.runs_here:  # it may have been taken over meanwhile
            live.deliver(fresh)

    async def _show_reader(self, live: LiveTurn) -> None:
        if live.age_s - live.shown_s >= _LOOK_AGAIN_S:
            await self._log.show_reader(live.turn_id)
            live.shown_s = live.age_s

    def _remainder(self, live: LiveTurn, record: TurnRecord) -> list[Entry]:
        """The end of a turn that its log lacks, from its record; the words stand in the conversation."""
        assert record.end
        events: list[Event] = [record.end]
        if live.last == 0:
            events = [Started(record.conversation_id, record.model, record.create_time), record.usage, record.end]
        elif not isinstance(live.entries[-1].event, Usage):
            raise _not_resumable()
        return [
            Entry(sequence, event, self._encode(live.turn_id, sequence, event))
            for sequence, event in enumerate(events, live.last + 1)
        ]

    def _reading(self, asker: Asker, live: LiveTurn, after: int) -> Reading:
        return Reading(live, after, (asker.tenant_id, asker.user_id), self._readings)


def _reused() -> AlreadyExists:
    return AlreadyExists(Reason.REQUEST_ID_REUSED, "This request_id stands for another question: use a new one.")


def turn_not_found() -> NotFound:
    """The refusal for a turn that is not, or is somebody else's."""
    return NotFound(Reason.TURN_NOT_FOUND, "You have no such turn.")


def _beyond(last: int) -> Invalid:
    return Invalid(Reason.SEQUENCE_BEYOND_LOG, f"The turn has {last} events: resume from 0.", last_sequence=last)


def _not_resumable() -> WrongState:
    return WrongState(Reason.TURN_NOT_RESUMABLE, "The turn's events are gone; the conversation has the answer.")
