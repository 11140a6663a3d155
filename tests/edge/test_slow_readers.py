"""Clients that stop reading an endless stream: the service is held back, and what the edge keeps is bounded."""

import asyncio
import time

import grpc

from parley.auth.v1 import user_service_pb2, user_service_pb2_grpc
from parley.notification.v1 import notification_service_pb2, notification_service_pb2_grpc
from tests.conftest import Signer
from tests.edge.conftest import Edge
from tests.edge.servers import FLOOD

STALLED = 50
KIB = 1024
MOST_PER_STREAM = 512 * KIB
"""Client, edge and service together: each holds a window of 64 KiB and a little more."""
MOST_IN_ENVOY = 32 * KIB * KIB


async def test_the_service_stops_sending_and_others_are_served(edge: Edge, signer: Signer) -> None:
    before = edge.memory()
    request = notification_service_pb2.WatchNotificationsRequest(after_sequence=FLOOD)
    # Without the first option the client would buffer more and more of what nobody reads.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(edge.target, options) as channel:
        watch = notification_service_pb2_grpc.NotificationServiceStub(channel).WatchNotifications
        calls = [watch(request, metadata=signer.metadata()) for _ in range(STALLED)]
        for call in calls:
            await call.read()
        sent = -1
        while sent != edge.seen.flooded_bytes:  # until nothing moves
            sent = edge.seen.flooded_bytes
            await asyncio.sleep(0.5)
        kept = edge.memory() - before
        async with grpc.aio.insecure_channel(edge.target) as other:
            began_s = time.monotonic()
            await user_service_pb2_grpc.UserServiceStub(other).GetMe(
                user_service_pb2.GetMeRequest(), metadata=signer.metadata()
            )
            assert time.monotonic() - began_s < 1
        for call in calls:
            call.cancel()
    print(
        f"{STALLED} stalled readers: {sent / STALLED / KIB:.0f} KiB sent to each, {kept / KIB / KIB:.1f} MiB in Envoy"
    )
    assert sent < STALLED * MOST_PER_STREAM
    assert kept < MOST_IN_ENVOY
