"""In-memory feeds, held to the same suite as the real ones (test_store.py)."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID, uuid4

from services.notification.notification import Notification, Owner, Subject


class FakeWakeUps:
    """Implements follow.WakeUps."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, list[asyncio.Event]] = defaultdict(list)
        self.deserted = asyncio.Event()  # set while nobody watches
        self.deserted.set()

    @contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        self._watchers[key].append(woken)
        self.deserted.clear()
        try:
            yield woken
        finally:
            self._watchers[key].remove(woken)
            if not any(self._watchers.values()):
                self.deserted.set()

    def wake(self, key: str) -> None:
        for woken in self._watchers[key]:
            woken.set()


class FakeNotifications:
    """Implements notification.Notifications."""

    def __init__(self, wake_ups: FakeWakeUps) -> None:
        self._wake_ups = wake_ups
        self._inbox: set[UUID] = set()
        self._feeds: defaultdict[Owner, list[Notification]] = defaultdict(list)

    async def add(self, event_id: UUID, owner: Owner, subject: Subject, create_time: datetime) -> None:
        if event_id in self._inbox:
            return
        self._inbox.add(event_id)
        feed = self._feeds[owner]
        feed.append(Notification(uuid4(), len(feed) + 1, create_time, subject))
        self._wake_ups.wake(str(owner.user_id))

    async def newest(self, owner: Owner, before_sequence: int, limit: int) -> Sequence[Notification]:
        return [found for found in reversed(self._feeds[owner]) if found.sequence < before_sequence][:limit]

    async def after(self, owner: Owner, sequence: int, limit: int) -> Sequence[Notification]:
        return [found for found in self._feeds[owner] if found.sequence > sequence][:limit]
