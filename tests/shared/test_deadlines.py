"""Work for a call stops when its deadline is over: here, at the peer that was asked, and in the database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from parley.notification.v1.notification_service_pb2 import (
    ListNotificationsRequest,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from services.shared.postgres.database import Database
from services.shared.serving.deadline import within
from tests.conftest import ServeLocally, Signer
from tests.refusals import failure_of, reason_of
from tests.shared.serving import Context, Given

TIME_S = 0.5
STOPS_WITHIN_S = 0.1


class Work:
    """Endless; knows when it ended, in seconds after the deadline of the call that asked for it."""

    def __init__(self) -> None:
        self.over, self.ended_at_s = asyncio.Event(), 0.0
        self.left_s = 0.0

    @asynccontextmanager
    async def done_for(self, context: Context) -> AsyncIterator[None]:
        self.left_s = context.time_remaining() or 0
        try:
            yield
            await asyncio.Event().wait()
        finally:
            self.ended_at_s = time.monotonic()
            self.over.set()

    async def ended_in_time(self, deadline_s: float) -> bool:
        """Whether it ended at most STOPS_WITHIN_S after this time of the monotonic clock."""
        async with asyncio.timeout(5):
            await self.over.wait()
        return self.ended_at_s <= deadline_s + STOPS_WITHIN_S


@pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
async def test_a_handler_stops_at_the_deadline(serve_locally: ServeLocally, signer: Signer, streams: bool) -> None:
    work = Work()

    async def unary(context: Context) -> None:
        async with work.done_for(context):
            pass

    async def stream(context: Context) -> AsyncIterator[WatchNotificationsResponse]:
        async with work.done_for(context):
            yield WatchNotificationsResponse()

    async with serve_locally(Given(unary, stream).register) as channel:
        await channel.channel_ready()
        deadline_s = time.monotonic() + TIME_S
        error = await failure_of(_call(channel, signer, streams))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert await work.ended_in_time(deadline_s)


async def _call(channel: grpc.aio.Channel, signer: Signer, streams: bool) -> None:
    stub = NotificationServiceStub(channel)
    if streams:
        async for _ in stub.WatchNotifications(WatchNotificationsRequest(), metadata=signer.metadata(), timeout=TIME_S):
            pass
    else:
        await stub.ListNotifications(ListNotificationsRequest(), metadata=signer.metadata(), timeout=TIME_S)


async def test_a_peer_has_less_time_than_the_call_it_works_for_and_stops_with_it(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    here, there = Work(), Work()

    async def asked(context: Context) -> None:
        async with there.done_for(context):
            pass

    async with serve_locally(Given(asked).register) as peer:
        await peer.channel_ready()

        async def asking(context: Context) -> None:
            async with here.done_for(context):
                request = ListNotificationsRequest()
                call = NotificationServiceStub(peer).ListNotifications(
                    request, metadata=signer.metadata(), timeout=within(60)
                )
                await call

        async with serve_locally(Given(asking).register) as channel:
            await channel.channel_ready()
            deadline_s = time.monotonic() + TIME_S
            await failure_of(_call(channel, signer, streams=False))
            assert await there.ended_in_time(deadline_s)
            assert await here.ended_in_time(deadline_s)
    assert there.left_s < here.left_s - 0.02


async def test_a_statement_stops_in_the_database_too(
    serve_locally: ServeLocally, signer: Signer, tally: Database
) -> None:
    async def slow(context: Context) -> None:
        await tally.one("slow")

    async with serve_locally(Given(slow).register) as channel:
        await channel.channel_ready()
        deadline_s = time.monotonic() + TIME_S
        call = asyncio.create_task(_call(channel, signer, streams=False))
        while not await tally.one("find_running", "%pg_sleep(60)%"):
            await asyncio.sleep(0.005)
        await failure_of(call)
        while await tally.one("find_running", "%pg_sleep(60)%"):
            await asyncio.sleep(0.005)
        assert time.monotonic() < deadline_s + STOPS_WITHIN_S
