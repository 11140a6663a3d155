"""All turns of this process: who asks first runs the turn, who repeats joins it, whoever else reads follows its log.

A request is claimed in the record, so that one replica answers it however many are asked. Copies that arrive here
while it is being answered here share its LiveTurn; one that another replica answers is followed by a single task for
all its readers in this process.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID, uuid4

from services.chat.answer import Answer, Means, TurnEnds
from services.chat.live import Encode, LiveTurn, TurnLog, TurnTaken
from services.chat.turn import Asker, Entry, Event, Question, Started, Turn, TurnRecord
from services.shared.errors import AlreadyExists, Invalid, Reason, Refusal, Unavailable

_log = logging.getLogger("parley.chat")
_LOOK_AGAIN_S = 1.0  # how long a silent log is waited on before the record is asked
_STOPPING_S = 2.0  # the part of the stop's grace in which stopped turns are saved and their readers told
_CLOSING_S = 8.0  # what the last turns get to be saved when the process stops


@dataclass(frozen=True)
class Claim:
    """Whose turn a request has become."""

    turn_id: UUID
    ours: bool  # this claim made the turn, or made a failed one start again
    same_content: bool


class TurnRecords(TurnEnds, Protocol):
    """The record of turns. Each method raises Unavailable when it can't be reached."""

    async def claim(self, turn: Turn, digest: bytes, lifetime_s: float) -> Claim:
        """Make the turn of a request, unless it has one. One that failed before anything was saved starts again."""

    async def release(self, turn: Turn) -> None:
        """Take back a claim of ours, as if the request had not come."""

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        """What is known of this asker's turn."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How this installation answers."""

    models: tuple[str, ...]  # the first is the default
    reader_grace_s: float  # how long a turn runs on without any reader


class Turns:
    """Starts and joins turns. `running` encloses their life."""

    def __init__(self, records: TurnRecords, log: TurnLog, encode: Encode, means: Means, rules: Rules) -> None:
        self._records = records
        self._log = log
        self._encode = encode
        self._means = means
        self._rules = rules
        self._live: dict[tuple[UUID, UUID, UUID], LiveTurn] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open_count(self) -> int:
        """Turns with a reader or a run here."""
        return len(self._live)

    def start(self, asker: Asker, question: Question) -> LiveTurn:
        """The turn of this request, with one reader more: the caller, who must `leave` it. Raises Invalid.

        Refusals that need the record or the conversation come out of the turn's `follow`.
        """
        model = self._model(question)
        self._means.prompts.check(question)
        key = _key(asker, question)
        digest = question.digest()
        live = self._live.get(key)
        if live is None:
            turn = Turn(id=uuid4(), run_id=uuid4(), asker=asker, question=question, model=model)
            live = self._live[key] = LiveTurn(turn.id, digest, self._log, self._encode, self._rules.reader_grace_s)
            task = asyncio.create_task(self._serve(turn, live))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif live.digest != digest:
            raise _reused()
        live.join()
        return live

    async def drain(self, grace_s: float) -> None:
        """Let running turns finish, then stop the others while their readers are still there to hear of it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, grace_s - _STOPPING_S))
        for live in self._live.values():
            live.stop.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On exit, stop the turns that still run and wait until their words are saved."""
        yield
        await self.drain(0)
        if self._tasks:
            _, unsaved = await asyncio.wait(self._tasks, timeout=_CLOSING_S)
            for task in unsaved:
                task.cancel()

    def _model(self, question: Question) -> str:
        models = self._rules.models
        model = question.model or models[0]
        if model not in models:
            message = f"This installation offers {', '.join(models)}."
            raise Invalid(Reason.MODEL_UNKNOWN, message, models=",".join(models))
        return model

    async def _serve(self, turn: Turn, live: LiveTurn) -> None:
        try:
            claim = await self._claim(turn, live.digest)
            live.turn_id = claim.turn_id
            if claim.ours:
                await self._run(replace(turn, id=claim.turn_id), live)
            else:
                await self._follow_elsewhere(turn.asker, live)
        except Exception as error:  # a refusal or a defect: the readers' calls end by it
            live.refuse(error)
        finally:
            # Nothing is awaited since the last look at the readers, so nobody joins a turn that is not served.
            del self._live[_key(turn.asker, turn.question)]

    async def _claim(self, turn: Turn, digest: bytes) -> Claim:
        claim = await self._records.claim(turn, digest, self._means.deadline_s)
        if not claim.same_content:
            raise _reused()
        return claim

    async def _run(self, turn: Turn, live: LiveTurn) -> None:
        try:
            await self._log.begin(turn.id)
            await Answer(turn, live, self._means).run()
        except Refusal:
            with suppress(Unavailable):
                await self._records.release(turn)
            raise
        except TurnTaken:
            _log.warning("another replica answers this turn now", extra={"facts": {"turn_id": turn.id}})
            await self._follow_elsewhere(turn.asker, live)

    async def _follow_elsewhere(self, asker: Asker, live: LiveTurn) -> None:
        """What another replica writes, to the readers here, until the end or until there are none."""
        while live.readers and not live.over:
            entries = await self._log.read(live.turn_id, live.last, wait_s=_LOOK_AGAIN_S)
            if not entries:
                record = await self._records.find(asker, live.turn_id)
                if record is None or record.overdue:
                    raise Unavailable(Reason.SERVICE_UNAVAILABLE, "The turn was given up. Send the request again.")
                if record.end:
                    entries = await self._log.read(live.turn_id, live.last) or self._remainder(live, record)
            if entries:
                live.deliver(entries)

    def _remainder(self, live: LiveTurn, record: TurnRecord) -> list[Entry]:
        """The end of a turn whose log is gone, from its record; the words stand in the conversation."""
        assert record.end
        events: list[Event] = [record.usage, record.end]
        if live.last == 0:
            events.insert(0, Started(record.conversation_id, record.model, record.create_time))
        return live.numbered(events)


def _key(asker: Asker, question: Question) -> tuple[UUID, UUID, UUID]:
    return asker.tenant_id, asker.user_id, question.request_id


def _reused() -> AlreadyExists:
    return AlreadyExists(Reason.REQUEST_ID_REUSED, "This request_id stands for another question: use a new one.")
