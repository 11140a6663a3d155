"""The outside of chat in memory: session, knowledge, the model, the log, the record."""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar, cast
from uuid import UUID, uuid4

from services.chat.live import LogBehind, TurnTaken
from services.chat.prompt import Prompt
from services.chat.speech import Piece
from services.chat.turn import (
    Asker,
    Completed,
    End,
    Entry,
    Failed,
    FinishReason,
    Message,
    Passage,
    Rating,
    Rewound,
    SavedAnswer,
    Turn,
    TurnRecord,
    Usage,
)
from services.chat.turns import Claim
from services.shared.errors import Reason, Refusal, Unavailable

T = TypeVar("T")


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
    ) -> SavedAnswer:
        self.calls += 1
        if self.closing_refusal:
            raise self.closing_refusal
        first = Closed(text, whole, tuple(passages), usage, uuid4() if text else None)
        closed = self.answers.setdefault(turn.id, first)
        return SavedAnswer(closed.text, closed.whole, closed.passages, closed.usage, closed.message_id)


class FakeDocuments:
    def __init__(self) -> None:
        self.passages: list[Passage] = []
        self.refusal: Refusal | None = None
        self.calls = 0
        self.searched: list[tuple[str, tuple[str, ...]]] = []

    async def search(self, asker: Asker, text: str, history: Sequence[str]) -> Sequence[Passage]:
        self.calls += 1
        self.searched.append((text, tuple(history)))
        if self.refusal:
            raise self.refusal
        return self.passages


class FakeModel:
    """Says its script: words are said, an error is raised, an event is waited for."""

    def __init__(self, *script: str | Exception | asyncio.Event) -> None:
        self.script = script or ("The ", "answer.")
        self.next_scripts: list[tuple[str | Exception | asyncio.Event, ...]] = []  # for the calls after the first
        self.prompts: list[Prompt] = []
        self.speaking = 0
        self.finish_reason: FinishReason | None = FinishReason.STOP

    async def speak(
        self, model: str, prompt: Prompt, *, temperature: float | None, interval_s: float, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        script = self.next_scripts.pop(0) if self.prompts and self.next_scripts else self.script
        self.prompts.append(prompt)
        self.speaking += 1
        said = 0
        try:
            for step in script:
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


class EchoModel(FakeModel):
    """Says a text word by word, from where it had come to; pauses after so many words until `go_on` is set."""

    def __init__(self, text: str, *, pause_after: int | None = None, pause_s: float = 0, uneven: bool = False) -> None:
        """Says a word each `pause_s`; if `uneven`, each call says more words at once than the call before, up to 3."""
        super().__init__()
        self.dying = False  # it stops in the middle, and can't be reached
        self._pause_s = pause_s
        self._uneven = uneven
        self._pieces = [word if number == 0 else f" {word}" for number, word in enumerate(text.split())]
        self._pause_after = pause_after
        self.go_on = asyncio.Event()

    async def speak(
        self, model: str, prompt: Prompt, *, temperature: float | None, interval_s: float, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        last = prompt.messages[-1]
        begun = len(last["content"].split()) if last["role"] == "assistant" else 0
        self.prompts.append(prompt)
        self.speaking += 1
        try:
            size = 1 + (len(self.prompts) - 1) % 3 if self._uneven else 1
            for number in range(begun, len(self._pieces), size):
                if number == self._pause_after:
                    await self.go_on.wait()
                await asyncio.sleep(self._pause_s)
                if self.dying:
                    raise Unavailable(Reason.MODEL_UNAVAILABLE, "died")
                said = self._pieces[number : number + size]
                yield Piece("".join(said), Usage(7, number + len(said) - begun), None)
            yield Piece("", Usage(7, len(self._pieces) - begun), FinishReason.STOP)
        finally:
            self.speaking -= 1


class Line:
    """What leads from a replica to the outside. Once it is cut, nothing passes it, and nothing is ever heard."""

    def __init__(self) -> None:
        self.is_cut = False
        self.steps = 0  # calls so far
        self.cut_at: tuple[int, str] | None = None  # a step, and whether "before" or "after" it takes effect
        self.pause_at: tuple[int, str] | None = None  # the same; the replica stands still from there on
        self.go_on = asyncio.Event()  # cleared: the replica stands still
        self.go_on.set()
        self._never: list[asyncio.Event] = []  # keeps alive who waits for ever

    async def before(self) -> int:
        """The number of the step that begins."""
        self.steps += 1
        await self._pass(self.steps, "before")
        return self.steps

    async def after(self, step: int) -> None:
        """The step has taken effect."""
        await self._pass(step, "after")

    async def _pass(self, step: int, when: str) -> None:
        if self.cut_at == (step, when):
            self.is_cut = True
        if self.pause_at == (step, when):
            self.go_on.clear()
        if self.is_cut:
            self._never.append(asyncio.Event())
            await self._never[-1].wait()
        await self.go_on.wait()

    def to(self, outside: T) -> T:
        """The same outside, over this line."""
        return cast(T, _Remote(outside, self))


class _Remote:
    def __init__(self, outside: object, line: Line) -> None:
        self._outside = outside
        self._line = line

    def __getattr__(self, name: str) -> object:
        found, line = getattr(self._outside, name), self._line
        if inspect.isasyncgenfunction(found):

            async def stream(*arguments: object, **options: object) -> AsyncGenerator[object, None]:
                step = await line.before()
                async with aclosing(found(*arguments, **options)) as items:
                    async for item in items:
                        await line.after(step)
                        step = await line.before()
                        yield item

            return stream
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: object, **options: object) -> object:
            step = await line.before()
            answer = await found(*arguments, **options)
            await line.after(step)
            return answer

        return call


class FakeTurnLog:
    """`down` refuses; `appending`, when set to an event, holds appends until it is set; `lose` is a restart."""

    def __init__(self) -> None:
        self.entries: defaultdict[UUID, list[Entry]] = defaultdict(list)
        self.down = False
        self.appending: asyncio.Event | None = None
        self.appends: list[int] = []  # how many entries each brought
        self.reads = 0
        self.life = 1
        self.readers: set[UUID] = set()  # turns that are read elsewhere
        self._written = asyncio.Condition()

    @property
    def incarnation(self) -> str | None:
        return None if self.down else f"life {self.life}"

    def lose(self, entries: int) -> None:
        """Start anew without so many last entries of each turn."""
        self.life += 1
        for log in self.entries.values():
            del log[len(log) - min(entries, len(log)) :]

    async def begin(self, turn_id: UUID) -> None:
        self._check()

    async def append(
        self, turn_id: UUID, after: int, entries: Sequence[Entry], *, incarnation: str | None = None
    ) -> str | None:
        self.appends.append(len(entries))
        if self.appending:
            await self.appending.wait()
        self._check()
        if incarnation not in (None, self.incarnation):
            raise Unavailable(Reason.TURN_LOG_UNAVAILABLE, "started anew")
        log = self.entries[turn_id]
        last = log[-1].sequence if log else 0
        if last < after:
            raise LogBehind(last)
        if entries[0].sequence <= last:
            if [entry.encoded for entry in log[-len(entries) :]] == [entry.encoded for entry in entries]:
                return self.incarnation
            raise TurnTaken(str(turn_id))
        async with self._written:
            for entry in entries:
                if isinstance(entry.event, Rewound):
                    del log[1:]
                log.append(entry)
            self._written.notify_all()
        return self.incarnation

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

    async def last(self, turn_id: UUID) -> Entry | None:
        self._check()
        return self.entries[turn_id][-1] if self.entries[turn_id] else None

    async def show_reader(self, turn_id: UUID) -> None:
        self._check()
        self.readers.add(turn_id)

    async def has_reader(self, turn_id: UUID) -> bool:
        self._check()
        return turn_id in self.readers

    def _after(self, turn_id: UUID, after: int) -> list[Entry]:
        return [entry for entry in self.entries[turn_id] if entry.sequence > after][:64]

    def _check(self) -> None:
        if self.down:
            raise Unavailable(Reason.TURN_LOG_UNAVAILABLE, "down")


@dataclass
class _Row:
    turn: Turn
    digest: bytes
    replica_id: UUID
    deadline_s: float
    run_s: float
    end: End | None = None
    usage: Usage = field(default_factory=Usage)
    message_id: UUID | None = None
    cancel_s: float | None = None
    first_text_time: datetime | None = None
    end_time: datetime | None = None
    rating: Rating = field(default_factory=Rating)


@dataclass
class _Record:
    rows: dict[tuple[UUID, UUID, UUID], _Row] = field(default_factory=dict)
    leases: dict[UUID, float] = field(default_factory=dict)
    facts: list[tuple[UUID, str]] = field(default_factory=list)
    ended: list[tuple[UUID, End]] = field(default_factory=list)
    watchers: defaultdict[str, set[asyncio.Event]] = field(default_factory=lambda: defaultdict(set))
    down: bool = False


class FakeTurnRecords:
    """The record as one replica sees it; `of` gives another one its view. It wakes its watchers, too."""

    def __init__(self, record: _Record | None = None, replica_id: UUID | None = None) -> None:
        self.record = record or _Record()
        self.replica_id = replica_id or uuid4()
        self.renewed_s = float("-inf")

    def of(self, replica_id: UUID) -> "FakeTurnRecords":
        return FakeTurnRecords(self.record, replica_id)

    @property
    def rows(self) -> dict[tuple[UUID, UUID, UUID], _Row]:
        return self.record.rows

    @property
    def ended(self) -> list[tuple[UUID, End]]:
        """The facts for other services about ends."""
        return self.record.ended

    @property
    def down(self) -> bool:
        return self.record.down

    @down.setter
    def down(self, value: bool) -> None:
        self.record.down = value

    def expire(self, replica_id: UUID) -> None:
        """Let a replica's lease end now."""
        self.record.leases[replica_id] = float("-inf")

    @contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        self.record.watchers[key].add(woken)
        try:
            yield woken
        finally:
            self.record.watchers[key].discard(woken)

    def _wake(self, key: str) -> None:
        for woken in self.record.watchers[key]:
            woken.set()

    async def claim(self, turn: Turn, digest: bytes, open_turns: int) -> Claim | None:
        self._check()
        asker = turn.asker
        key = (asker.tenant_id, asker.user_id, turn.question.request_id)
        row = self.rows.get(key)
        now_s = _now_s()
        running = [row for user, row in self.rows.items() if user[:2] == key[:2] and row.end is None]
        full = len(running) >= open_turns
        if row is None:
            if full:
                return None
            turn = replace(turn, create_time=datetime.now(UTC))
            self.rows[key] = _Row(turn, digest, self.replica_id, now_s + turn.time_left_s, now_s)
            return _claim(turn, ours=True, same_content=True)
        same = row.digest == digest
        again = same and row.message_id is None and isinstance(row.end, Failed)
        if again and full:
            return None
        if again:
            before, row.end, row.cancel_s, row.first_text_time = row.turn, None, None, None
            row.turn = replace(
                turn, id=before.id, create_time=before.create_time, runs=before.runs + 1, log_incarnation=None
            )
            row.deadline_s, row.run_s, row.replica_id = now_s + turn.time_left_s, now_s, self.replica_id
        return _claim(row.turn, ours=again, same_content=same)

    async def release(self, turn: Turn) -> None:
        self._check()
        for key, row in list(self.rows.items()):
            if row.turn.run_id == turn.run_id and row.end is None:
                del self.rows[key]

    async def retake(self, turn: Turn) -> Turn | None:
        self._check()
        row = self._running(turn)
        return self._claimed(row, log_incarnation=None) if row else None

    async def mark_log(self, turn: Turn, incarnation: str | None) -> bool:
        self._check()
        if row := self._running(turn):
            row.turn = replace(row.turn, log_incarnation=incarnation)
        return row is not None

    async def finish(
        self, turn: Turn, end: End, usage: Usage, message_id: UUID | None, first_text_time: datetime | None
    ) -> bool:
        self._check()
        if row := self._running(turn):
            row.end, row.usage, row.message_id = end, usage, message_id
            row.first_text_time, row.end_time = first_text_time, datetime.now(UTC)
            self.ended.append((row.turn.id, end))
            self.record.facts.append((turn.asker.tenant_id, f"Turn{type(end).__name__}"))
            self._wake(str(turn.id))
        return any(row.turn.run_id == turn.run_id for row in self.rows.values())

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        self._check()
        row = self._of(asker, turn_id)
        return _turn_record(row) if row else None

    async def request_cancel(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        self._check()
        if (row := self._of(asker, turn_id)) and row.end is None:
            row.cancel_s = row.cancel_s or _now_s()
            self._wake("turns")
        return _turn_record(row) if row else None

    async def rate(self, asker: Asker, turn_id: UUID, rating: Rating) -> TurnRecord | None:
        self._check()
        if row := self._of(asker, turn_id):
            row.rating = rating
            self.record.facts.append((asker.tenant_id, "TurnRated"))
        return _turn_record(row) if row else None

    async def renew(self, lease_s: float) -> None:
        self._check()
        self.renewed_s = _now_s()
        self.record.leases[self.replica_id] = self.renewed_s + lease_s

    async def take_over(self, runs: Collection[UUID], limit: int) -> Sequence[Turn]:
        self._check()
        orphans = [row for row in self.rows.values() if row.end is None and self._is_orphan(row, runs)]
        return [self._claimed(row, replica_id=self.replica_id) for row in orphans[:limit]]

    async def wishes(self) -> Sequence[tuple[UUID, float]]:
        self._check()
        mine = [row for row in self.rows.values() if row.replica_id == self.replica_id and row.end is None]
        return [(row.turn.id, _now_s() - row.cancel_s) for row in mine if row.cancel_s is not None]

    async def has_others(self) -> bool:
        self._check()
        return any(key != self.replica_id and until_s > _now_s() for key, until_s in self.record.leases.items())

    async def retire(self) -> None:
        self._check()
        self.expire(self.replica_id)
        self._wake("turns")

    def _is_orphan(self, row: _Row, runs: Collection[UUID]) -> bool:
        if row.replica_id == self.replica_id:
            return row.turn.run_id not in runs and row.run_s < self.renewed_s
        return self.record.leases.get(row.replica_id, float("-inf")) <= _now_s()

    def _claimed(self, row: _Row, *, replica_id: UUID | None = None, **changes: object) -> Turn:
        row.replica_id, row.run_s = replica_id or row.replica_id, _now_s()
        time_left_s = row.deadline_s - row.run_s
        row.turn = replace(row.turn, run_id=uuid4(), runs=row.turn.runs + 1, time_left_s=time_left_s, **changes)
        return row.turn

    def _running(self, turn: Turn) -> _Row | None:
        return next((row for row in self.rows.values() if row.turn.run_id == turn.run_id and row.end is None), None)

    def _of(self, asker: Asker, turn_id: UUID) -> _Row | None:
        for (tenant_id, user_id, _), row in self.rows.items():
            if (tenant_id, user_id, row.turn.id) == (asker.tenant_id, asker.user_id, turn_id):
                return row
        return None

    def _check(self) -> None:
        if self.down:
            raise Unavailable(Reason.RECORD_UNAVAILABLE, "down")


def _claim(turn: Turn, *, ours: bool, same_content: bool) -> Claim:
    return Claim(turn.id, ours, same_content, turn.runs, turn.create_time, turn.log_incarnation)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _turn_record(row: _Row) -> TurnRecord:
    return TurnRecord(
        id=row.turn.id,
        request_id=row.turn.question.request_id,
        conversation_id=row.turn.question.conversation_id,
        model=row.turn.model,
        create_time=row.turn.create_time,
        first_text_time=row.first_text_time,
        end_time=row.end_time,
        usage=row.usage,
        message_id=row.message_id,
        end=row.end,
        rating=row.rating,
    )


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
