"""A chat on fakes, and what the tests say to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from services.chat.answer import Means
from services.chat.live import LiveTurn
from services.chat.prompt import Prompts
from services.chat.turn import Asker, Entry, Passage, Question, TextDelta
from services.chat.turns import Rules, Turns
from services.chat.wire import encode
from tests.chat.fakes import FakeConversations, FakeDocuments, FakeMeter, FakeModel, FakeTurnLog, FakeTurnRecords

CONVERSATION = uuid4()


def an_asker() -> Asker:
    return Asker(uuid4(), uuid4(), "token")


def a_question(text: str = "What is the answer?", *, request_id: UUID | None = None, **options: object) -> Question:
    return Question(request_id=request_id or uuid4(), conversation_id=CONVERSATION, text=text, **options)


def a_passage(text: str = "The answer is 42.", title: str = "guide.pdf") -> Passage:
    return Passage(id=str(uuid4()), document_id=str(uuid4()), title=title, page=7, headings=("Answers",), text=text)


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
    reader_grace_s: float = 0.0

    def __post_init__(self) -> None:
        means = Means(
            conversations=self.conversations,
            documents=self.documents,
            model=self.model,
            ends=self.records,
            meter=self.meter,
            prompts=Prompts(2048),
            deadline_s=self.deadline_s,
        )
        rules = Rules(models=("chat", "echo"), reader_grace_s=self.reader_grace_s)
        self.turns = Turns(self.records, self.log, encode, means, rules)

    @asynccontextmanager
    async def reading(self, asker: Asker, question: Question) -> AsyncIterator[LiveTurn]:
        turn = self.turns.start(asker, question)
        try:
            yield turn
        finally:
            turn.leave()

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
