"""A channel to a peer with two replicas: one that stands still, connections and all, is left before calls run out."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from services.shared.serving.channel import PING_AFTER_MS, open_channel
from services.shared.serving.server import Service, serve
from services.shared.serving.settings import ServingSettings
from stack.mesh import pick_ports
from tests.conftest import Signer
from tests.shared.serving import NAME, Context, Given, list_once

IDEMPOTENT = ((NAME, "ListNotifications"),)
CALLS = 8
DEADLINE_S = 4.0
"""As chat gives session."""
SLOW_S = 12 * PING_AFTER_MS / 1000
"""More pings without an answer's data than a gRPC server takes that was not told of them."""


def settings(signer: Signer, ports: dict[str, int], replica: str) -> ServingSettings:
    return ServingSettings(
        listen_address=f"127.0.0.1:{ports[replica]}",
        metrics_address=f"127.0.0.1:{ports[f'{replica}-metrics']}",
        jwks_file=signer.jwks_file,
    )


def serve_alone(own: ServingSettings, takes_s: float) -> None:
    async def wait(context: Context) -> None:
        await asyncio.sleep(takes_s)

    given = Given(wait)
    asyncio.run(serve(Service(name="notification", settings=own, register=[given.register], proto_services=[NAME])))


@contextmanager
def replica(own: ServingSettings, takes_s: float = 0) -> Iterator[int]:
    """A process of its own, its pid: what stands still is all of it."""
    process = multiprocessing.get_context("spawn").Process(target=serve_alone, args=(own, takes_s), daemon=True)
    process.start()
    assert process.pid
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


async def test_calls_are_answered_by_the_other_replica(signer: Signer) -> None:
    ports = pick_ports(["1", "1-metrics", "2", "2-metrics"])
    target = f"ipv4:127.0.0.1:{ports['1']},127.0.0.1:{ports['2']}"
    one, other = settings(signer, ports, "1"), settings(signer, ports, "2")
    with replica(one) as first, replica(other):
        async with asyncio.timeout(30):
            for alone in (one, other):  # both are there
                async with open_channel(alone.listen_address, "notification", alone) as channel:
                    await channel.channel_ready()
            async with open_channel(target, "notification", one, idempotent=IDEMPOTENT) as channel:
                await asyncio.gather(*(list_once(channel, signer.metadata()) for _ in range(CALLS)))
                os.kill(first, signal.SIGSTOP)
                await asyncio.gather(*(list_once(channel, signer.metadata(), DEADLINE_S) for _ in range(CALLS)))


async def test_a_slow_peer_is_not_asked_too_often_whether_it_is_there(signer: Signer) -> None:
    ports = pick_ports(["1", "1-metrics"])
    own = settings(signer, ports, "1")
    with replica(own, takes_s=SLOW_S):
        async with asyncio.timeout(30), open_channel(own.listen_address, "notification", own) as channel:
            await channel.channel_ready()
            await list_once(channel, signer.metadata())
