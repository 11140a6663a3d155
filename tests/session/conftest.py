"""The record of conversations, fake and real, and what the tests say in it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest

from parley.session.v1 import session_events_pb2
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub, add_SessionServiceServicer_to_server
from parley.session.v1.turn_record_service_pb2_grpc import (
    TurnRecordServiceStub,
    add_TurnRecordServiceServicer_to_server,
)
from services.session.conversation import Conversation, Conversations, Owner, create_conversation
from services.session.handlers import RULES, SessionService, TurnRecordService
from services.session.message import Message, Messages, State
from services.session.store import StoredConversations, StoredMessages, StoredTurns
from services.session.turn import Answer, OpenedTurn, Question, Turns, open_turn
from services.shared.postgres.database import Database
from tests.conftest import ServeLocally, Signer
from tests.session.fakes import FakeConversations, FakeMessages, FakeRecord, FakeTurns

Fact = tuple[str, dict[str, str]]


def an_owner() -> Owner:
    return Owner(tenant_id=uuid4(), user_id=uuid4())


def a_colleague_of(owner: Owner) -> Owner:
    return Owner(tenant_id=owner.tenant_id, user_id=uuid4())


@dataclass(frozen=True)
class Record:
    """The ports together, and what the tests do with them again and again."""

    conversations: Conversations
    messages: Messages
    turns: Turns
    facts: Callable[[Owner], Awaitable[list[Fact]]]  # the events of an organisation, oldest first

    async def conversation(self, owner: Owner, title: str = "") -> Conversation:
        return await create_conversation(self.conversations, owner, uuid4(), title)

    async def ask(
        self,
        owner: Owner,
        conversation_id: UUID,
        text: str,
        *,
        turn_id: UUID | None = None,
        history: int = 100,
        follows: UUID | None = None,
        replaces: UUID | None = None,
    ) -> OpenedTurn:
        question = Question(turn_id or uuid4(), conversation_id, text, follows, replaces)
        return await open_turn(self.turns, owner, question, history)

    async def answer(self, owner: Owner, turn_id: UUID, text: str, state: State = State.COMPLETE) -> Message | None:
        return (await self.turns.close(owner, Answer(turn_id, text, state))).answer

    async def exchange(
        self,
        owner: Owner,
        conversation_id: UUID,
        question: str,
        answer: str,
        *,
        follows: UUID | None = None,
        replaces: UUID | None = None,
    ) -> UUID:
        opened = await self.ask(owner, conversation_id, question, follows=follows, replaces=replaces)
        await self.answer(owner, opened.question.turn_id, answer)
        return opened.question.turn_id

    async def said(self, owner: Owner, conversation_id: UUID, branch: UUID | None = None) -> list[str]:
        page = await self.messages.page(owner, conversation_id, 0, 1000, branch)
        return [message.text for message in page.messages]


@asynccontextmanager
async def locked(database: Database, conversation_id: UUID) -> AsyncIterator[asyncpg.Connection]:
    """The conversation's row is locked until the body ends, so that statements begun inside all wait in it."""
    connection = await database.connect()
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM conversations WHERE id = $1 FOR UPDATE", conversation_id)
            yield connection
    finally:
        await connection.close()


async def waiting(connection: asyncpg.Connection, statements: int) -> None:
    """Return when so many statements wait for a lock in this database."""
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"""
    async with asyncio.timeout(10):
        while await connection.fetchval(query) < statements:
            # pg_stat_activity is frozen within a transaction unless it is told otherwise.
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.005)


@pytest.fixture
def fake_record() -> Record:
    record = FakeRecord()

    async def facts(owner: Owner) -> list[Fact]:
        return [fact for fact in record.events if fact[1]["tenant_id"] == str(owner.tenant_id)]

    return Record(FakeConversations(record), FakeMessages(record), FakeTurns(record), facts)


@pytest.fixture(scope="module")
async def database(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Database]:
    """Shared by a module's tests: each has an organisation of its own."""
    async with database_for("session") as database:
        yield database


@pytest.fixture(scope="module")
def real_record(database: Database) -> Record:
    async def facts(owner: Owner) -> list[Fact]:
        connection = await database.connect()
        try:
            query = "SELECT * FROM outbox WHERE tenant_id = $1 ORDER BY position"
            return [_fact(row) for row in await connection.fetch(query, owner.tenant_id)]
        finally:
            await connection.close()

    return Record(StoredConversations(database), StoredMessages(database), StoredTurns(database), facts)


def _fact(row: dict) -> Fact:
    event_type = row["event_type"]
    event = getattr(session_events_pb2, event_type.rpartition(".")[2]).FromString(row["payload"])
    assert str(row["aggregate_id"]) == event.conversation_id
    return event_type, {field.name: value for field, value in event.ListFields()}


@pytest.fixture(params=["fake", "postgres"])
def record(request: pytest.FixtureRequest) -> Record:
    return request.getfixturevalue("fake_record" if request.param == "fake" else "real_record")


Metadata = tuple[tuple[str, str], ...]
TENANT, USER = uuid4(), uuid4()


@pytest.fixture
async def channel(serve_locally: ServeLocally, fake_record: Record) -> AsyncIterator[grpc.aio.Channel]:
    users = SessionService(fake_record.conversations, fake_record.messages)
    chat = TurnRecordService(fake_record.turns)
    register = (
        partial(add_SessionServiceServicer_to_server, users),
        partial(add_TurnRecordServiceServicer_to_server, chat),
    )
    async with serve_locally(*register, rules=RULES) as channel:
        yield channel


@pytest.fixture
def sessions(channel: grpc.aio.Channel) -> SessionServiceStub:
    return SessionServiceStub(channel)


@pytest.fixture
def turns(channel: grpc.aio.Channel) -> TurnRecordServiceStub:
    return TurnRecordServiceStub(channel)


@pytest.fixture
def me(signer: Signer) -> Metadata:
    return signer.metadata(tenant=TENANT, user=USER)
