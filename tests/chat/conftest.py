"""A chat on fakes, and what the tests say to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from services.chat.answer import Means
from services.chat.live import LiveTurn
from services.chat.ownership import Ownership
from services.chat.pace import Pace
from services.chat.prompt import Prompts
from services.chat.turn import Asker, Entry, Event, Passage, Question, TextDelta, Turn
from services.chat.turns import Rules, Turns
from services.chat.wire import encode
from tests.chat.fakes import FakeConversations, FakeDocuments, FakeMeter, FakeModel, FakeTurnLog, FakeTurnRecords, Line

CONVERSATION = uuid4()


def an_asker() -> Asker:
    return Asker(uuid4(), uuid4(), "token")


def a_question(text: str = "What is the answer?", *, request_id: UUID | None = None, **options: object) -> Question:
    return Question(request_id=request_id or uuid4(), conversation_id=CONVERSATION, text=text, **options)


def a_turn(asker: Asker | None = None, question: Question | None = None) -> Turn:
    return Turn(
        id=uuid4(),
        run_id=uuid4(),
        asker=asker or an_asker(),
        question=question or a_question(),
        model="chat",
        create_time=datetime(2026, 11, 1, tzinfo=UTC),
        time_left_s=60.0,
    )


def a_passage(text: str = "The answer is 42.", title: str = "guide.pdf") -> Passage:
    return Passage(id=str(uuid4()), document_id=str(uuid4()), title=title, page=7, headings=("Answers",), text=text)


def a_faq(question: str = "What is the answer?", answer: str = "The answer is 42.") -> Passage:
    faq_id = str(uuid4())
    text = f"{question}\n{answer}"
    return Passage(id=faq_id, document_id="", title=question, page=None, headings=(), text=text, faq_id=faq_id)


def entries_of(turn_id: UUID, first: int, *events: Event) -> list[Entry]:
    return [Entry(number, event, encode(turn_id, number, event)) for number, event in enumerate(events, first)]


def kinds(entries: list[Entry]) -> list[str]:
    return [type(entry.event).__name__ for entry in entries]


def words(entries: list[Entry]) -> str:
    return "".join(entry.event.text for entry in entries if isinstance(entry.event, TextDelta))


@dataclass
class Chat:
    """One replica; give several the same `log` and `records` and they are replicas of one service."""

    log: FakeTurnLog = field(default_factory=FakeTurnLog)
    records: FakeTurnRecords = field(default_factory=FakeTurnRecords)
    conversations: FakeConversations = field(default_factory=FakeConversations)
    documents: FakeDocuments = field(default_factory=FakeDocuments)
    model: FakeModel = field(default_factory=FakeModel)
    meter: FakeMeter = field(default_factory=FakeMeter)
    deadline_s: float = 60.0
    reader_grace_s: float = 60.0
    patience_s: float = 0.0
    open_turns: int = 20
    open_readers: int = 200
    events_per_s: float = float("inf")
    longest_interval_s: float = 0.0
    replica_id: UUID = field(default_factory=uuid4)
    line: Line = field(default_factory=Line)

    def __post_init__(self) -> None:
        self.records = self.records.of(self.replica_id)
        self._wire()

    def _wire(self) -> None:
        records, log = self.line.to(self.records), self.line.to(self.log)
        means = Means(
            conversations=self.line.to(self.conversations),
            documents=self.line.to(self.documents),
            model=self.line.to(self.model),
            ends=records,
            meter=self.meter,
            prompts=Prompts(2048),
            pace=Pace(self.events_per_s, self.longest_interval_s),
            patience_s=self.patience_s,
        )
        rules = Rules(
            models=("chat", "echo"),
            deadline_s=self.deadline_s,
            reader_grace_s=self.reader_grace_s,
            open_turns=self.open_turns,
            open_readers=self.open_readers,
        )
        self.turns = Turns(records, log, self.records, encode, means, rules)
        self.ownership = Ownership(records, self.records, self.turns, lease_s=1.2, beat_s=0.3)

    def kill(self) -> None:
        """kill -9: nothing that it does reaches the outside any more, and its lease is over."""
        self.line.is_cut = True
        self.records.expire(self.replica_id)

    def change(self, **changes: object) -> None:
        """Set it up anew, before its first turn."""
        for name, value in changes.items():
            setattr(self, name, value)
        self._wire()

    def other(self, **changes: object) -> "Chat":
        """Another replica of the same service."""
        shared = {"log": self.log, "records": self.records, "conversations": self.conversations}
        return Chat(**{**shared, "documents": self.documents, "model": self.model, **changes})

    @asynccontextmanager
    async def reading(self, asker: Asker, question: Question) -> AsyncIterator[LiveTurn]:
        reading = self.turns.start(asker, question)
        try:
            yield reading.live
        finally:
            reading.leave()

    async def resume(self, asker: Asker, turn_id: UUID, after: int = 0) -> list[Entry]:
        """Every entry of the turn after a number."""
        reading = await self.turns.resume(asker, turn_id, after)
        try:
            return [entry async for entry in reading.follow()]
        finally:
            reading.leave()

    async def ask(self, asker: Asker, question: Question) -> list[Entry]:
        """Every entry of the turn. Raises as a call would, losing them."""
        async with self.reading(asker, question) as turn:
            return [entry async for entry in turn.follow()]

    async def ask_until_failed(self, asker: Asker, question: Question) -> tuple[list[Entry], Exception]:
        """Every entry of a turn that does not complete, and what its call ends by."""
        entries: list[Entry] = []
        async with self.reading(asker, question) as turn:
            try:
                async for entry in turn.follow():
                    entries.append(entry)
            except Exception as error:
                return entries, error
        raise AssertionError(f"the turn ended by {entries[-1]}")

    async def settled(self) -> None:
        """Wait until no turn is open."""
        async with asyncio.timeout(5):
            while self.turns.open_count:
                await asyncio.sleep(0)


@pytest.fixture
def chat() -> Chat:
    return Chat()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
