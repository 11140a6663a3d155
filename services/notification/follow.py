"""Following a feed: what is stored first, then each new entry as it comes, without gap or repeat.

A wake-up carries nothing; it only says "look again". It is cleared before each look, so an entry that is added
during the look wakes once more. Places in a feed become visible in order (see 0001_feed.sql), so going on after
the last one seen is enough.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Protocol

from services.notification.notification import Notification, Notifications, Owner
from services.shared.errors import Reason, Unauthenticated

_PAGE = 100


class WakeUps(Protocol):
    """Tells when a user's feed may have grown."""

    def watch(self, key: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever the feeds of the user with this id may have grown."""


class Follow:
    """Follows feeds for as long as the reader's sign-in holds."""

    def __init__(
        self, notifications: Notifications, wake_ups: WakeUps, clock_s: Callable[[], float] = time.time
    ) -> None:
        self._notifications = notifications
        self._wake_ups = wake_ups
        self._clock_s = clock_s

    async def __call__(self, owner: Owner, after_sequence: int, expires_at_s: float) -> AsyncIterator[Notification]:
        """Entries after `after_sequence`, oldest first; raises Unauthenticated at `expires_at_s` (Unix time)."""
        with self._wake_ups.watch(str(owner.user_id)) as woken:
            while True:
                woken.clear()
                found = await self._notifications.after(owner, after_sequence, _PAGE)
                for notification in found:
                    yield notification
                    after_sequence = notification.sequence
                left_s = expires_at_s - self._clock_s()
                if left_s <= 0:
                    raise Unauthenticated(Reason.TOKEN_EXPIRED, "The access token has expired: refresh it and go on.")
                if len(found) < _PAGE:
                    await _set_within(woken, left_s)


async def _set_within(woken: asyncio.Event, limit_s: float) -> None:
    # Not asyncio.timeout around the whole: it would also strike while the reader takes an entry, outside of here.
    try:
        async with asyncio.timeout(limit_s):
            await woken.wait()
    except TimeoutError:
        pass
