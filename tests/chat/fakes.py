"""The outside of chat in memory: session, knowledge, the model, the log, the record."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from services.chat.answer import Piece
from services.chat.live import TurnTaken
from services.chat.prompt import Prompt
from services.chat.turn import (
    Asker,
    Completed,
    End,
    Entry,
    Failed,
    FinishReason,
    Message,
    Passage,
    Turn,
    TurnRecord,
    Usage,
)
from services.chat.turns import Claim
from services.shared.errors import Reason, Refusal, Unavailable


@dataclass(frozen=True)
class Closed:
    text: str
    whole: bool
    passages: tuple[Passage, ...]
    usage: Usage
    message_id: UUID | None


class FakeConversations:
    """Questions and answers by turn. `refusal` is raised by the next calls; `calls` counts for the budget."""

    def __init__(self) -> None:
        self.history: list[Message] = []
        self.questions: dict[UUID, str] = {}
        self.answers: dict[UUID, Closed] = {}
        self.refusal: Refusal | None = None
        self.closing_refusal: Refusal | None = None
        self.calls = 0
        self.open_now: asyncio.Event | None = None  # opening waits for it

    async def open_turn(self, turn: Turn) -> Sequence[Message]:
        self.calls += 1
        if self.open_now:
            await self.open_now.wait()
        if self.refusal:
            raise self.refusal
        self.questions[turn.id] = turn.question.text
        return self.history

    async def close_turn(
        self, turn: Turn, text: str, *, whole: bool, passages: Sequence[Passage], usage: Usage
    ) -> UUID | None:
        self.calls += 1
        if self.closing_refusal:
            raise self.closing_refusal
        message_id = uuid4() if text else None
        self.answers[turn.id] = Closed(text, whole, tuple(passages), usage, message_id)
        return message_id


class FakeDocuments:
    def __init__(self) -> None:
        self.passages: list[Passage] = []
        self.refusal: Refusal | None = None
        self.calls = 0

    async def search(self, asker: Asker, text: str) -> Sequence[Passage]:
        self.calls += 1
        if self.refusal:
            raise self.refusal
        return self.passages


class FakeModel:
    """Says its script: words are said, an error is raised, an event is waited for."""

    def __init__(self, *script: str | Exception | asyncio.Event) -> None:
        self.script = script or ("The ", "answer.")
        self.prompts: list[Prompt] = []
        self.speaking = 0
        self.finish_reason: FinishReason | None = FinishReason.STOP

    async def speak(
        self, model: str, prompt: Prompt, *, temperature: float | None, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        self.prompts.append(prompt)
        self.speaking += 1
        said = 0
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    said += 1
                    yield Piece(step, Usage(7, said), None)
            if self.finish_reason:
                yield Piece("", Usage(7, said), self.finish_reason)
        finally:
            self.speaking -= 1


class FakeTurnLog:
    """`down` refuses; `appending`, when set to an event, holds appends until it is set."""

    def __init__(self) -> None:
        self.entries: defaultdict[UUID, list[Entry]] = defaultdict(list)
        self.down = False
        self.appending: asyncio.Event | None = None
        self.appends: list[int] = []  # how many entries each brought
        self.reads = 0
        self._written = asyncio.Condition()

    async def begin(self, turn_id: UUID) -> None:
        self._check()
        self.entries.pop(turn_id, None)

    async def append(self, turn_id: UUID, entries: Sequence[Entry]) -> None:
        self.appends.append(len(entries))
        if self.appending:
            await self.appending.wait()
        self._check()
        log = self.entries[turn_id]
        last = log[-1].sequence if log else 0
        if entries[0].sequence <= last:
            if [entry.encoded for entry in log[-len(entries) :]] == [entry.encoded for entry in entries]:
                return
            raise TurnTaken(str(turn_id))
        async with self._written:
            log.extend(entries)
            self._written.notify_all()

    async def read(self, turn_id: UUID, after: int, *, wait_s: float = 0) -> list[Entry]:
        self._check()
        self.reads += 1
        if wait_s and not self._after(turn_id, after):
            try:
                async with asyncio.timeout(wait_s), self._written:
                    await self._written.wait_for(lambda: self._after(turn_id, after))
            except TimeoutError:
                pass
        return self._after(turn_id, after)

    def _after(self, turn_id: UUID, after: int) -> list[Entry]:
        return [entry for entry in self.entries[turn_id] if entry.sequence > after][:64]

    def _check(self) -> None:
        if self.down:
            raise Unavailable(Reason.TURN_LOG_UNAVAILABLE, "down")


@dataclass
class _Row:
    turn: Turn
    digest: bytes
    deadline: datetime
    end: End | None = None
    usage: Usage = field(default_factory=Usage)
    message_id: UUID | None = None
    tried: bool = False
    create_time: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    @property
    def overdue(self) -> bool:
        return self.end is None and self.deadline < datetime.now(UTC)


class FakeTurnRecords:
    def __init__(self) -> None:
        self.rows: dict[tuple[UUID, UUID, UUID], _Row] = {}
        self.ended: list[tuple[UUID, End]] = []  # the facts for other services
        self.down = False

    async def claim(self, turn: Turn, digest: bytes, lifetime_s: float) -> Claim:
        self._check()
        deadline = datetime.now(UTC) + timedelta(seconds=lifetime_s + 60)
        key = (turn.asker.tenant_id, turn.asker.user_id, turn.question.request_id)
        row = self.rows.get(key)
        if row is None:
            self.rows[key] = _Row(turn, digest, deadline)
            return Claim(turn.id, ours=True, same_content=True)
        same = row.digest == digest
        again = same and row.message_id is None and (isinstance(row.end, Failed) or row.overdue)
        if again:
            row.turn, row.deadline, row.end, row.tried = replace(turn, id=row.turn.id), deadline, None, True
        return Claim(row.turn.id, ours=again, same_content=same)

    async def release(self, turn: Turn) -> None:
        self._check()
        for key, row in list(self.rows.items()):
            if row.turn.run_id == turn.run_id and row.end is None:
                if row.tried:
                    row.end = Failed(Reason.SERVICE_UNAVAILABLE, "")
                else:
                    del self.rows[key]

    async def finish(self, turn: Turn, end: End, usage: Usage, message_id: UUID | None) -> None:
        self._check()
        for row in self.rows.values():
            if row.turn.run_id == turn.run_id and row.end is None:
                row.end, row.usage, row.message_id = end, usage, message_id
                self.ended.append((row.turn.id, end))

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        self._check()
        for (tenant_id, user_id, _), row in self.rows.items():
            if (tenant_id, user_id, row.turn.id) == (asker.tenant_id, asker.user_id, turn_id):
                return TurnRecord(
                    conversation_id=row.turn.question.conversation_id,
                    model=row.turn.model,
                    create_time=row.create_time,
                    usage=row.usage,
                    end=row.end,
                    overdue=row.overdue,
                )
        return None

    def _check(self) -> None:
        if self.down:
            raise Unavailable(Reason.RECORD_UNAVAILABLE, "down")


class FakeMeter:
    def __init__(self) -> None:
        self.first: list[float] = []
        self.ends: list[tuple[End, Usage]] = []

    def first_words(self, model: str, seconds: float) -> None:
        self.first.append(seconds)

    def ended(self, model: str, end: End, usage: Usage) -> None:
        self.ends.append((end, usage))


def completed(entries: Sequence[Entry]) -> Completed:
    end = entries[-1].event
    assert isinstance(end, Completed)
    return end
