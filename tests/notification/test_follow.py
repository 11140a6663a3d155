"""Following a feed, on fake and real feeds."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from services.notification.follow import Follow
from services.notification.notification import Notification, Notifications, Owner
from services.shared.errors import Reason, Unauthenticated
from tests.notification.conftest import NOON, Feeds, an_owner, fill, ready
from tests.notification.fakes import FakeNotifications, FakeWakeUps

NEVER_S = float(2**40)


async def _take(entries: AsyncIterator[Notification], count: int) -> list[Notification]:
    async with asyncio.timeout(10):
        return [await anext(entries) for _ in range(count)]


async def test_stored_entries_come_first_then_new_ones(feeds: Feeds) -> None:
    notifications, wake_ups = feeds
    owner = an_owner()
    await fill(notifications, owner, "a", "b")
    entries = Follow(notifications, wake_ups)(owner, 1, NEVER_S)
    assert [entry.sequence for entry in await _take(entries, 1)] == [2]
    waiting = asyncio.create_task(_take(entries, 2))
    await fill(notifications, owner, "c", "d")
    assert [entry.sequence for entry in await waiting] == [3, 4]
    await entries.aclose()


async def test_more_stored_entries_than_a_page_come_without_a_wake_up(feeds: Feeds) -> None:
    notifications, wake_ups = feeds
    owner = an_owner()
    await fill(notifications, owner, *map(str, range(250)))
    entries = Follow(notifications, wake_ups)(owner, 0, NEVER_S)
    assert [entry.sequence for entry in await _take(entries, 250)] == list(range(1, 251))
    await entries.aclose()


async def test_writers_and_followers_at_once_see_every_entry_once_and_in_order(feeds: Feeds) -> None:
    notifications, wake_ups = feeds
    owner, count = an_owner(), 120
    follow = Follow(notifications, wake_ups)
    followers = [asyncio.create_task(_take(follow(owner, 0, NEVER_S), count)) for _ in range(3)]

    async def write() -> None:
        for _ in range(count // 4):
            await notifications.add(uuid4(), owner, ready(), NOON)

    await asyncio.gather(*(write() for _ in range(4)))
    for seen in await asyncio.gather(*followers):
        assert [entry.sequence for entry in seen] == list(range(1, count + 1))


async def test_an_entry_added_during_the_look_is_not_missed() -> None:
    wake_ups = FakeWakeUps()
    owner = an_owner()

    class AddsWhileReading(FakeNotifications):
        async def after(self, owner: Owner, sequence: int, limit: int) -> list[Notification]:
            found = await super().after(owner, sequence, limit)
            if sequence < 3:  # the look is over, its answer not yet delivered
                await fill(self, owner, "late")
            return found

    entries = Follow(AddsWhileReading(wake_ups), wake_ups)(owner, 0, NEVER_S)
    assert [entry.sequence for entry in await _take(entries, 3)] == [1, 2, 3]
    await entries.aclose()


async def test_it_ends_when_the_sign_in_does(fake_feeds: tuple[FakeNotifications, FakeWakeUps]) -> None:
    notifications, wake_ups = fake_feeds
    owner = an_owner()
    await fill(notifications, owner, "a", "b")
    clock = itertools.chain([99.98], itertools.repeat(100.0))
    entries = Follow(notifications, wake_ups, lambda: next(clock))(owner, 0, 100.0)
    assert len(await _take(entries, 2)) == 2
    with pytest.raises(Unauthenticated) as refused:
        await _take(entries, 1)
    assert refused.value.reason is Reason.TOKEN_EXPIRED
    assert wake_ups.deserted.is_set()


async def test_a_busy_feed_does_not_outlive_the_sign_in(fake_feeds: tuple[FakeNotifications, FakeWakeUps]) -> None:
    notifications, wake_ups = fake_feeds
    owner = an_owner()
    await fill(notifications, owner, *map(str, range(150)))
    entries = Follow(notifications, wake_ups, lambda: 100.0)(owner, 0, 100.0)
    with pytest.raises(Unauthenticated):
        await _take(entries, 150)


async def test_a_follower_that_leaves_is_forgotten(fake_feeds: tuple[FakeNotifications, FakeWakeUps]) -> None:
    notifications: Notifications
    notifications, wake_ups = fake_feeds
    owner = an_owner()
    await fill(notifications, owner, "a")
    entries = Follow(notifications, wake_ups)(owner, 0, NEVER_S)
    await _take(entries, 1)
    assert not wake_ups.deserted.is_set()
    await entries.aclose()
    assert wake_ups.deserted.is_set()
