"""Named statements and refusals on real PostgreSQL."""

import asyncio

import asyncpg
import pytest

from services.shared.errors import Reason, Unavailable
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener


async def test_a_lost_connection_is_unavailable_and_the_next_call_works(tally: Database) -> None:
    working = asyncio.create_task(tally.one("slow"))
    while not await tally.all("end_connection", "%pg_sleep(60)%"):
        await asyncio.sleep(0)  # until the statement runs
    with pytest.raises(Unavailable) as refused:
        await working
    assert refused.value.reason is Reason.RECORD_UNAVAILABLE
    await tally.probe()


async def test_a_defect_is_not_called_unavailable(tally: Database) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await tally.one("divide", 0)
    with pytest.raises(asyncpg.DataError):
        await tally.one("divide", "one")


async def test_a_watcher_is_woken_by_its_key_alone(tally: Database) -> None:
    listener = Listener(tally, "tally")
    with listener.watch("one") as one, listener.watch("two") as two:
        async with listener.running(), asyncio.timeout(10):
            await one.wait()  # it listens
            await two.wait()
            one.clear()
            two.clear()
            await tally.one("notify", "one")
            await one.wait()
            assert not two.is_set()


async def test_all_watchers_of_a_key_are_woken(tally: Database) -> None:
    listener = Listener(tally, "tally")
    with listener.watch("one") as first, listener.watch("one") as second:
        async with listener.running(), asyncio.timeout(10):
            for woken in (first, second):
                await woken.wait()
                woken.clear()
            await tally.one("notify", "one")
            await asyncio.gather(first.wait(), second.wait())


async def test_watchers_are_woken_after_a_lost_connection_and_by_what_comes_then(tally: Database) -> None:
    listener = Listener(tally, "tally")
    with listener.watch("one") as woken:
        async with listener.running(), asyncio.timeout(10):
            await woken.wait()
            woken.clear()
            assert await tally.all("end_connection", "LISTEN%")
            await woken.wait()  # it may have missed something
            woken.clear()
            await tally.one("notify", "one")
            await woken.wait()


async def test_a_watch_that_ended_is_forgotten(tally: Database) -> None:
    listener = Listener(tally, "tally")
    with listener.watch("one") as left:
        pass
    with listener.watch("one") as woken:
        async with listener.running(), asyncio.timeout(10):
            await woken.wait()
    assert not left.is_set()
