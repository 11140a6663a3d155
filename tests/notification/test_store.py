"""One suite for the feeds: on the fake, and on real PostgreSQL."""

import asyncio
from uuid import uuid4

import pytest

from services.notification.notification import LAST_SEQUENCE, AnswerReady, DocumentRefused, Owner, Subject
from tests.notification.conftest import NOON, Feeds, an_owner, fill, ready


async def test_entries_get_growing_places_from_one(feeds: Feeds) -> None:
    notifications, _ = feeds
    owner = an_owner()
    await fill(notifications, owner, "a", "b", "c")
    assert [found.sequence for found in await notifications.after(owner, 0, 10)] == [1, 2, 3]


@pytest.mark.parametrize(
    "subject",
    [
        ready("Größe — מדריך.pdf"),
        DocumentRefused(uuid4(), "scan.pdf", 9_999, "No text was found."),
        AnswerReady(uuid4(), uuid4(), uuid4()),
    ],
    ids=lambda subject: type(subject).__name__,
)
async def test_an_entry_comes_back_as_it_was_added(feeds: Feeds, subject: Subject) -> None:
    notifications, _ = feeds
    owner = an_owner()
    await notifications.add(uuid4(), owner, subject, NOON)
    (found,) = await notifications.after(owner, 0, 10)
    assert (found.subject, found.create_time) == (subject, NOON)


async def test_newest_come_first_and_only_those_before(feeds: Feeds) -> None:
    notifications, _ = feeds
    owner = an_owner()
    await fill(notifications, owner, "a", "b", "c", "d")
    assert [found.sequence for found in await notifications.newest(owner, LAST_SEQUENCE, 3)] == [4, 3, 2]
    assert [found.sequence for found in await notifications.newest(owner, 2, 3)] == [1]


async def test_after_stops_at_the_limit(feeds: Feeds) -> None:
    notifications, _ = feeds
    owner = an_owner()
    await fill(notifications, owner, "a", "b", "c")
    assert [found.sequence for found in await notifications.after(owner, 1, 1)] == [2]
    assert await notifications.after(owner, LAST_SEQUENCE, 1) == []


async def test_an_event_that_comes_again_adds_nothing(feeds: Feeds) -> None:
    notifications, _ = feeds
    owner = an_owner()
    (event_id,) = await fill(notifications, owner, "first")
    await notifications.add(event_id, owner, ready("again"), NOON)
    await fill(notifications, owner, "next")
    assert [found.subject.filename for found in await notifications.after(owner, 0, 10)] == ["first", "next"]
    assert [found.sequence for found in await notifications.after(owner, 0, 10)] == [1, 2]


async def test_one_event_from_many_consumers_at_once_adds_one_entry(feeds: Feeds) -> None:
    notifications, _ = feeds
    owner, event_id = an_owner(), uuid4()
    await asyncio.gather(*(notifications.add(event_id, owner, ready(), NOON) for _ in range(8)))
    assert len(await notifications.after(owner, 0, 10)) == 1


async def test_many_events_at_once_leave_no_gap(feeds: Feeds) -> None:
    notifications, _ = feeds
    owner = an_owner()
    await asyncio.gather(*(notifications.add(uuid4(), owner, ready(), NOON) for _ in range(20)))
    assert [found.sequence for found in await notifications.after(owner, 0, 100)] == list(range(1, 21))


async def test_a_feed_belongs_to_user_and_tenant(feeds: Feeds) -> None:
    notifications, _ = feeds
    owner = an_owner()
    await fill(notifications, owner, "mine")
    for other in (Owner(owner.tenant_id, uuid4()), Owner(uuid4(), owner.user_id)):
        assert await notifications.after(other, 0, 10) == []
        assert await notifications.newest(other, LAST_SEQUENCE, 10) == []
        await fill(notifications, other, "theirs")
        assert [found.sequence for found in await notifications.after(other, 0, 10)] == [1]
    assert len(await notifications.after(owner, 0, 10)) == 1


async def test_an_added_entry_wakes_the_watchers_of_its_user(feeds: Feeds) -> None:
    notifications, wake_ups = feeds
    owner, other = an_owner(), an_owner()
    with wake_ups.watch(str(owner.user_id)) as woken, wake_ups.watch(str(other.user_id)) as not_woken:
        await _settled(feeds, woken)
        not_woken.clear()
        await fill(notifications, owner, "a")
        async with asyncio.timeout(5):
            await woken.wait()
        assert not not_woken.is_set()


async def _settled(feeds: Feeds, woken: asyncio.Event) -> None:
    """Wait until wake-ups come through: a listener wakes everybody once when it begins to listen."""
    notifications, wake_ups = feeds
    probe = an_owner()
    with wake_ups.watch(str(probe.user_id)) as heard:
        async with asyncio.timeout(5):
            for number in range(2):
                await fill(notifications, probe, f"probe {number}")
                await heard.wait()
                heard.clear()
    woken.clear()
