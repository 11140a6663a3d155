"""The turns that run in this process.

A run ends with its turn, or when the turn goes to somebody else: because another replica claimed it, or because this
one stops. A run that is not alone in writing the log, though the record says that the turn is its own, begins again
with a rewind, which shuts the other one out.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from services.chat.answer import Answer, Means, TurnEnds
from services.chat.journal import Encode, Journal, LogMarks
from services.chat.live import LiveTurn, TurnLog, TurnTaken
from services.chat.speech import HandedOver
from services.chat.takeover import Recovered, recover
from services.chat.turn import Turn, Usage, failure
from services.shared.errors import Reason, Refusal, Unavailable

_log = logging.getLogger("parley.chat")
_RETURN_S = 10.0  # what the readers of a dead replica get to come back
_HEALING_S = 30.0  # how long the log of an ended turn is waited for


class RunRecords(TurnEnds, LogMarks, Protocol):
    """What a run changes in the record. Each method raises Unavailable when it can't be reached."""

    async def release(self, turn: Turn) -> None:
        """Take back a claim of ours, as if the request had not come."""

    async def retake(self, turn: Turn) -> Turn | None:
        """The turn under a new run id, its log not to be believed; None when it is not this run's any more."""


class Runs:
    """Runs turns, each in a task of its own."""

    def __init__(self, records: RunRecords, log: TurnLog, encode: Encode, means: Means) -> None:
        self.ids: set[UUID] = set()  # of the runs here, and of claims on their way
        self._records = records
        self._log = log
        self._encode = encode
        self._means = means
        self._tasks: dict[UUID, asyncio.Task[None]] = {}  # by turn

    def begin(self, turn: Turn, live: LiveTurn, *, taken_over: bool) -> None:
        """Run a turn that this replica has claimed, as its request's or `taken_over`, for the readers of `live`."""
        self.ids.add(turn.run_id)
        task = asyncio.create_task(self._run(turn, live, taken_over, self._tasks.get(turn.id)))
        self._tasks[turn.id] = task

        def forget(_: object) -> None:
            if self._tasks.get(turn.id) is task:
                del self._tasks[turn.id]

        task.add_done_callback(forget)

    async def over(self, turn_id: UUID) -> bool:
        """Wait until a turn does not run here; False when it does not run here at all."""
        if task := self._tasks.get(turn_id):
            await asyncio.wait((task,))
        return task is not None

    async def _run(
        self, turn: Turn | None, live: LiveTurn, taken_over: bool, before: asyncio.Task[None] | None
    ) -> None:
        if before:  # it lost the turn, which came back to this replica before it noticed
            before.cancel()
            await asyncio.wait((before,))
        try:
            while turn:
                turn, taken_over = await self._answered_or_retaken(turn, live, taken_over), True
        except HandedOver:
            live.refuse(Unavailable(Reason.SERVICE_UNAVAILABLE, "This replica stops: resume the turn."))
        except Exception as error:  # a refusal or a defect: the readers' calls end by it
            live.refuse(error)

    async def _answered_or_retaken(self, turn: Turn, live: LiveTurn, taken_over: bool) -> Turn | None:
        """Run the turn; what is left to do of it."""
        self.ids.add(turn.run_id)
        try:
            await self._answer(turn, live, taken_over)
        except TurnTaken:
            live.runs_here = False
            return await self._retake(turn)
        finally:
            self.ids.discard(turn.run_id)
        return None

    async def _retake(self, turn: Turn) -> Turn | None:
        """The turn again if only its log was written by somebody else: a replica that has not noticed yet."""
        _log.warning("another replica writes this turn", extra={"facts": {"turn_id": turn.id}})
        with suppress(Unavailable):
            return await self._records.retake(turn)
        return None

    def _interval_s(self) -> float:
        return self._means.pace.interval_s(len(self.ids))

    async def _answer(self, turn: Turn, live: LiveTurn, taken_over: bool) -> None:
        found = Recovered()
        if turn.runs > 1:
            found, entries = await recover(turn, self._log)
            live.run_here(entries, _RETURN_S)
        alone = turn.runs == 1 or found.rewind
        journal = Journal(turn, live, self._log, self._records, self._encode, alone=alone)
        answer = Answer(turn, live, journal, self._means, found, self._interval_s, patient=taken_over and found.started)
        try:
            if alone:
                await journal.begin()
            await answer.run()
            await journal.close(_HEALING_S)
        except Refusal as refusal:
            if not answer.opened:
                with suppress(Unavailable):
                    await self._take_back(turn, refusal)
            raise
        finally:
            await journal.close(0)

    async def _take_back(self, turn: Turn, refusal: Refusal) -> None:
        """End what was not opened. Where session did not answer, the question may be saved: a repeat needs this id."""
        if isinstance(refusal, Unavailable):
            await self._records.finish(turn, failure(refusal), Usage(), None, None)
        else:
            await self._records.release(turn)
