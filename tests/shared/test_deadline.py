"""How long a call may take."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from parley.notification.v1.notification_service_pb2 import (
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from services.shared.serving import deadline
from services.shared.serving.identity import TokenVerifier
from services.shared.serving.interceptor import CallInterceptor, CallRules
from tests.conftest import ServeLocally, Signer
from tests.refusals import failure_of, reason_of
from tests.shared.serving import LIST, Context, Given, calls_counted, list_once


async def test_a_call_ends_at_its_callers_deadline(serve_locally: ServeLocally, signer: Signer) -> None:
    stopped = asyncio.Event()

    async def endless(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serve_locally(Given(endless).register) as channel:
        error = await failure_of(list_once(channel, signer.metadata(), timeout=0.3))
        async with asyncio.timeout(5):
            await stopped.wait()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_server_sets_the_longest_time_itself(signer: Signer) -> None:
    async def endless(context: Context) -> AsyncIterator[WatchNotificationsResponse]:
        yield WatchNotificationsResponse()
        await asyncio.Event().wait()

    calls = CallInterceptor(TokenVerifier(signer.jwks_file), CallRules(), None, max_stream_s=0.2)
    server = grpc.aio.server(interceptors=[calls])
    Given(stream=endless).register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = NotificationServiceStub(channel).WatchNotifications(
            WatchNotificationsRequest(), metadata=signer.metadata(), timeout=30
        )
        assert await call.read() == WatchNotificationsResponse()
        error = await failure_of(call.read())
    await server.stop(None)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_too_little_time_is_refused_before_anything_begins(serve_locally: ServeLocally, signer: Signer) -> None:
    begun = 0

    async def begin(context: Context) -> None:
        nonlocal begun
        begun += 1

    refused = calls_counted(LIST, "DEADLINE_EXCEEDED")
    async with serve_locally(Given(begin).register) as channel:
        await channel.channel_ready()
        for _ in range(5):
            error = await failure_of(list_once(channel, signer.metadata(), timeout=0.045))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await list_once(channel, signer.metadata())
    assert begun == 1
    assert calls_counted(LIST, "DEADLINE_EXCEEDED") > refused  # at least one of them did arrive


async def test_each_call_has_a_deadline_of_its_own(serve_locally: ServeLocally, signer: Signer) -> None:
    left: dict[float, float] = {}
    both = asyncio.Barrier(2)

    async def look(context: Context) -> None:
        await both.wait()
        left[round(context.time_remaining())] = deadline.within(60)

    async with serve_locally(Given(look).register) as channel:
        metadata = signer.metadata()
        await asyncio.gather(list_once(channel, metadata, timeout=4), list_once(channel, metadata, timeout=8))
    assert left[4] < 4 < left[8] < 8
    assert deadline.within(60) == 60  # outside of any call
