"""All turns of this process: who asks first runs the turn, who repeats joins it, whoever else reads follows its log.

A request is claimed in the record, so that one replica answers it however many are asked. The readers of a turn in
this process share one LiveTurn, but for those who asked before it was known which turn it is. It is fed by the run of
the turn, or, where another replica runs it, by one task that follows the log. A turn that is taken over changes from
the second to the first, one that is lost the other way.
"""

import asyncio
from collections.abc import Coroutine, Set
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid4

from services.chat.answer import Means
from services.chat.follower import CATCHING_UP_S, LOOK_AGAIN_S, Follower, FoundTurns, beyond
from services.chat.journal import Encode
from services.chat.live import LiveTurn, TurnLog
from services.chat.reading import Reading, Readings
from services.chat.runs import RunRecords, Runs
from services.chat.turn import (
    Asker,
    CancellationCause,
    Question,
    Turn,
    TurnRecord,
    turn_not_found,
)
from services.shared.errors import AlreadyExists, Exhausted, Invalid, Reason, Unavailable

_RETRY_AFTER_S = 5.0
# So many turns are opened at once, in the order in which they came: when hundreds come together, the first ones need
# not wait for all. One that takes longer than this, because a peer is slow, lets the next one in.
_OPENING = 24
_OPENING_S = 0.25


@dataclass(frozen=True)
class Claim:
    """Whose turn a request has become, and what the record says of it."""

    turn_id: UUID
    ours: bool  # this claim made the turn, or made a failed one start again
    same_content: bool
    runs: int
    create_time: datetime
    log_incarnation: str | None


class TurnRecords(RunRecords, FoundTurns, Protocol):
    """The record of turns. Each method raises Unavailable when it can't be reached."""

    async def claim(self, turn: Turn, digest: bytes, open_turns: int) -> Claim | None:
        """Make the turn of a request, unless it has one. One that failed before anything was saved is tried again.

        None when the user has `open_turns` running ones.
        """

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
        self._follower = Follower(records, log, encode)
        self._readings = Readings(rules.open_readers)
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
        self._readings.check(asker)
        key = (asker.tenant_id, asker.user_id, question.request_id)
        digest = question.digest()
        live, asked = self._asked.get(key, (None, digest))
        if live and not live.refused:  # else the record is asked, again
            if asked != digest:
                raise _reused()
        else:
            turn = Turn(
                id=uuid4(),
                run_id=uuid4(),
                asker=asker,
                question=question,
                model=model,
                create_time=self._means.clock(),
                time_left_s=self._rules.deadline_s,
                log_incarnation=self._log.incarnation,
            )
            live = self._new(turn.id, question, runs_here=True)
            self._asked[key] = live, digest
            self._spawn(live, self._serve_request(key, turn, live, digest))
        return self._readings.begin(live, 0, asker)

    async def resume(self, asker: Asker, turn_id: UUID, after: int) -> Reading:
        """Read a turn after a number; the caller must `leave` it. Raises NotFound, Invalid, WrongState, Unavailable."""
        key = (asker.tenant_id, asker.user_id, turn_id)
        live = self._live.get(key)
        with self._readings.arriving(asker):
            if live is None or not live.runs_here:
                await self._follower.check(asker, turn_id, after)
            elif not await live.reaches(after, CATCHING_UP_S):
                raise beyond(live.last)
        live = self._live.get(key)  # as it is now
        if live is None:
            live = self._live[key] = self._new(turn_id, None, runs_here=False)
            self._spawn(live, self._serve(key, asker, live))
        return self._readings.begin(live, after, asker)

    async def cancel(self, asker: Asker, turn_id: UUID) -> TurnRecord:
        """The turn after its end, which this brings about. Raises NotFound."""
        with self._watch.watch(str(turn_id)) as woken:
            record = await self._records.request_cancel(asker, turn_id)
            while record and record.end is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
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

    async def _serve_request(self, request: tuple[UUID, UUID, UUID], turn: Turn, live: LiveTurn, digest: bytes) -> None:
        self._runs.ids.add(turn.run_id)
        try:
            async with self._opening:
                claim = await self._claim(turn, digest)
                turn = replace(
                    turn,
                    id=claim.turn_id,
                    create_time=claim.create_time,
                    runs=claim.runs,
                    log_incarnation=claim.log_incarnation,
                )
                live.turn_id = turn.id
                live.runs_here = claim.ours and claim.runs == 1  # else once it is known what it had shown
                key = (turn.asker.tenant_id, turn.asker.user_id, turn.id)
                if claim.ours:
                    self._live[key] = live
                    self._runs.begin(turn, live, taken_over=False)
                    await live.reaches(1, _OPENING_S)
                else:
                    self._live.setdefault(key, live)
                    self._runs.ids.discard(turn.run_id)
            await self._serve(key, turn.asker, live)
        except Exception as error:  # a refusal or a defect: the readers' calls end by it
            self._runs.ids.discard(turn.run_id)
            live.refuse(error)
        finally:
            if (live, digest) == self._asked.get(request):
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
                    await self._follower.follow(asker, live)
        except Exception as error:  # a refusal or a defect: the readers' calls end by it
            live.refuse(error)
        finally:
            # Nothing is awaited since the last look at the readers, so nobody joins a turn that is not served.
            if self._live.get(key) is live:
                del self._live[key]
                self._follower.forget(live.turn_id)

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


def _reused() -> AlreadyExists:
    return AlreadyExists(Reason.REQUEST_ID_REUSED, "This request_id stands for another question: use a new one.")
