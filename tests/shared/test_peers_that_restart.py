"""A channel to a peer with two replicas: a restart of one of them is not felt by calls that may be repeated."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from parley.notification.v1.notification_service_pb2 import ListNotificationsRequest
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from services.shared.serving.channel import open_channel
from services.shared.serving.server import Service, serve
from services.shared.serving.settings import ServingSettings
from stack.mesh import pick_ports
from stack.part import accepts_connection
from stack.supervisor import SETTLING_S
from tests.conftest import Signer
from tests.refusals import failure_of
from tests.shared.serving import NAME, Context, Given

CALLS_PER_S = 200
IDEMPOTENT = ((NAME, "ListNotifications"),)


def settings(signer: Signer, ports: dict[str, int], replica: str) -> ServingSettings:
    return ServingSettings(
        listen_address=f"127.0.0.1:{ports[replica]}",
        metrics_address=f"127.0.0.1:{ports[f'{replica}-metrics']}",
        jwks_file=signer.jwks_file,
        # None is needed: the calls that a peer sends until it hears of the stop are repeated.
        lame_duck_s=0,
        stop_grace_s=5,
    )


@asynccontextmanager
async def replica_of(signer: Signer, ports: dict[str, int], name: str, given: Given) -> AsyncIterator[None]:
    """Serves while the body runs, and stops as at SIGTERM."""
    stop = asyncio.Event()
    own = settings(signer, ports, name)
    service = Service(name="notification", settings=own, register=[given.register], proto_services=[NAME])
    running = asyncio.create_task(serve(service, stop=stop))
    while not running.done():
        try:
            await accepts_connection(ports[name])
            break
        except OSError:
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        stop.set()
        await running


async def test_no_call_fails_while_each_of_two_peers_restarts_in_turn(signer: Signer) -> None:
    async def brief(context: Context) -> None:
        await asyncio.sleep(0.005)

    ends: Counter[str] = Counter()
    ports = pick_ports(["1", "1-metrics", "2", "2-metrics"])
    target = f"ipv4:127.0.0.1:{ports['1']},127.0.0.1:{ports['2']}"

    async def call(stub: NotificationServiceStub) -> None:
        try:
            await stub.ListNotifications(ListNotificationsRequest(), metadata=signer.metadata(), timeout=4)
            ends["OK"] += 1
        except grpc.aio.AioRpcError as error:
            ends[f"{error.code()}: {error.details()}"] += 1

    async def calling(stub: NotificationServiceStub) -> None:
        async with asyncio.TaskGroup() as calls:
            while True:
                calls.create_task(call(stub))
                await asyncio.sleep(1 / CALLS_PER_S)

    given = Given(brief)
    channel = open_channel(target, "notification", settings(signer, ports, "1"), idempotent=IDEMPOTENT)
    async with asyncio.timeout(30), channel:
        first, second = replica_of(signer, ports, "1", given), replica_of(signer, ports, "2", given)
        await first.__aenter__()
        await second.__aenter__()
        callers = asyncio.create_task(calling(NotificationServiceStub(channel)))
        await asyncio.sleep(SETTLING_S)
        await first.__aexit__(None, None, None)
        async with replica_of(signer, ports, "1", given):
            await asyncio.sleep(SETTLING_S)
            await second.__aexit__(None, None, None)
            async with replica_of(signer, ports, "2", given):
                await asyncio.sleep(SETTLING_S)
                callers.cancel()
                await asyncio.wait([callers])
    assert ends["OK"] > CALLS_PER_S
    assert ends.keys() == {"OK"}, ends


async def test_what_a_closing_peer_had_not_begun_is_repeated_elsewhere_and_only_where_that_is_allowed(
    signer: Signer,
) -> None:
    asked = 0

    async def not_begun(context: Context) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await context.abort(grpc.StatusCode.CANCELLED)  # as gRPC itself answers

    ports = pick_ports(["1", "1-metrics"])
    own, request = settings(signer, ports, "1"), ListNotificationsRequest()
    async with replica_of(signer, ports, "1", Given(not_begun)):
        async with open_channel(f"127.0.0.1:{ports['1']}", "notification", own, idempotent=IDEMPOTENT) as channel:
            await NotificationServiceStub(channel).ListNotifications(request, metadata=signer.metadata(), timeout=4)
        assert asked == 2
        asked = 0
        async with open_channel(f"127.0.0.1:{ports['1']}", "notification", own) as channel:
            call = NotificationServiceStub(channel).ListNotifications(request, metadata=signer.metadata(), timeout=4)
            assert (await failure_of(call)).code() is grpc.StatusCode.CANCELLED
        assert asked == 1
