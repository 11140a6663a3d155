"""Feeds, fake and real, and what the tests put into them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from services.notification.follow import WakeUps
from services.notification.notification import DocumentReady, Notifications, Owner
from services.notification.store import StoredNotifications
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from tests.notification.fakes import FakeNotifications, FakeWakeUps

Feeds = tuple[Notifications, WakeUps]
NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def an_owner() -> Owner:
    return Owner(tenant_id=uuid4(), user_id=uuid4())


def ready(filename: str = "handbook.pdf") -> DocumentReady:
    return DocumentReady(document_id=uuid4(), filename=filename, passages=12)


async def fill(notifications: Notifications, owner: Owner, *filenames: str) -> list[UUID]:
    """Add one entry per file name, in this order; the ids of their events."""
    events = [uuid4() for _ in filenames]
    for event_id, filename in zip(events, filenames, strict=True):
        await notifications.add(event_id, owner, ready(filename), NOON)
    return events


@pytest.fixture
def fake_feeds() -> tuple[FakeNotifications, FakeWakeUps]:
    wake_ups = FakeWakeUps()
    return FakeNotifications(wake_ups), wake_ups


@pytest.fixture(scope="module")
async def real_feeds(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Feeds]:
    """Shared by a module's tests: each has an owner of its own."""
    async with database_for("notification") as database:
        listener = Listener(database, "notification")
        async with listener.running():
            yield StoredNotifications(database), listener


@pytest.fixture(params=["fake", "postgres"])
def feeds(request: pytest.FixtureRequest, fake_feeds: Feeds, real_feeds: Feeds) -> Feeds:
    return fake_feeds if request.param == "fake" else real_feeds
