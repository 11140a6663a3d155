"""Work in the background ends with its body, whatever it does."""

import asyncio

import pytest

from services.shared.background import background


async def test_work_is_cancelled_and_cleans_up_before_the_body_is_left() -> None:
    order: list[str] = []
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("cleaned up")

    async with background(work):
        await begun.wait()
    order.append("left")
    assert order == ["cleaned up", "left"]


async def test_work_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    begun, lost = asyncio.Event(), 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1  # as asyncio.wait_for of Python 3.11 does

    async with asyncio.timeout(5):
        async with background(work):
            await begun.wait()
    assert lost == 2


async def test_work_that_fails_is_logged_and_the_body_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    failed = asyncio.Event()

    async def work() -> None:
        failed.set()
        raise ZeroDivisionError

    async with background(work):
        await failed.wait()
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError
