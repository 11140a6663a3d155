"""Stores, fake and real, and a domain over fakes with a clock of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import pytest

from parley.auth.v1 import auth_events_pb2
from services.auth.account import Accounts, Credentials, Registration, Role, User
from services.auth.session import Lifetimes, SessionRecords, Sessions
from services.auth.sign_in import SignIn
from services.auth.store import StoredAccounts, StoredSessions
from services.shared.postgres.database import Database
from tests.auth.fakes import Fact, FakeAccessTokens, FakeClock, FakePasswords, FakeStore

PASSWORD = "correct horse battery"


def a_registration(**changes: object) -> Registration:
    values = {
        "request_id": uuid4(),
        "organisation_name": "Acme",
        "email": f"ada-{uuid4().hex}@example.org",
        "password": PASSWORD,
        "display_name": "Ada",
    }
    return Registration(**{**values, **changes})


def an_owner(email: str | None = None, **changes: object) -> Credentials:
    """Credentials of a new user; `changes` go to the credentials."""
    user = User(
        tenant_id=uuid4(),
        id=uuid4(),
        email=email or f"user-{uuid4().hex}@example.org",
        display_name="Größe — שלום",
        role=Role.OWNER,
        create_time=FakeClock()(),
    )
    return Credentials(**{"user": user, "password_hash": "v1:secret", **changes})


@dataclass
class Domain:
    """Sign-in and sessions over fakes."""

    store: FakeStore = field(default_factory=FakeStore)
    passwords: FakePasswords = field(default_factory=FakePasswords)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.store, FakeAccessTokens(), Lifetimes(600, 14 * 24 * 3600), self.clock)
        self.sign_in = SignIn(self.store, self.passwords, self.sessions, self.clock)

    def fact_names(self) -> list[str]:
        return [name for name, _ in self.store.facts]


@pytest.fixture
def domain() -> Domain:
    return Domain()


@dataclass
class Stores:
    """The two ports of a store; `facts` reads the outbox of one tenant, oldest first."""

    accounts: Accounts
    sessions: SessionRecords
    facts: Callable[[UUID], Awaitable[list[Fact]]]


@pytest.fixture
def fake_stores() -> Stores:
    store = FakeStore()

    async def facts(tenant_id: UUID) -> list[Fact]:
        return [fact for fact in store.facts if fact[1][0] == tenant_id]

    return Stores(store, store, facts)


@pytest.fixture(scope="module")
async def database(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Database]:
    """Shared by a module's tests: each has organisations of its own."""
    async with database_for("auth") as opened:
        yield opened


@pytest.fixture(scope="module")
async def real_stores(database: Database) -> AsyncIterator[Stores]:
    connection = await database.connect()

    async def facts(tenant_id: UUID) -> list[Fact]:
        rows = await connection.fetch("SELECT * FROM outbox WHERE tenant_id = $1 ORDER BY position", tenant_id)
        return [_fact(row) for row in rows]

    yield Stores(StoredAccounts(database), StoredSessions(database), facts)
    await connection.close()


@pytest.fixture(params=["fake", "postgres"])
def stores(request: pytest.FixtureRequest, fake_stores: Stores, real_stores: Stores) -> Stores:
    return fake_stores if request.param == "fake" else real_stores


def _fact(row: asyncpg.Record) -> Fact:
    name = row["event_type"].removeprefix("parley.auth.v1.")
    event = getattr(auth_events_pb2, name).FromString(row["payload"])
    ids = [UUID(event.tenant_id), UUID(event.user_id)]
    if name != "UserRegistered":
        ids.append(UUID(event.session_id))
    assert row["aggregate_id"] == ids[-1]
    return name, tuple(ids)
