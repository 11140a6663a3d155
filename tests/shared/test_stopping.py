"""Readiness, and a stop that nobody notices who is still being served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from parley.notification.v1.notification_service_pb2 import (
    ListNotificationsRequest,
    ListNotificationsResponse,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from services.shared.serving.interceptor import CallRules
from services.shared.serving.server import Check, Service, serve
from services.shared.serving.settings import ServingSettings
from stack.mesh import pick_ports
from tests.conftest import Signer
from tests.refusals import details_of, failure_of, reason_of
from tests.shared.serving import NAME, WATCH, Context, Given

EAGER = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
# The second is gRPC's answer to a call that had come but not begun when the server closed.
CLOSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass
class Running:
    """A service that serves, in plaintext as behind a sidecar."""

    channel: grpc.aio.Channel
    stop: asyncio.Event
    ended: asyncio.Task[None]
    metrics_address: str
    signer: Signer

    def list(self) -> grpc.aio.UnaryUnaryCall:
        return NotificationServiceStub(self.channel).ListNotifications(
            ListNotificationsRequest(), metadata=self.signer.metadata(), timeout=10
        )

    def watch_health(self, name: str = "") -> grpc.aio.UnaryStreamCall:
        return HealthStub(self.channel).Watch(HealthCheckRequest(service=name), timeout=20)


async def _until(watch: grpc.aio.UnaryStreamCall, status: int) -> None:
    while (await watch.read()).status != status:
        pass


@asynccontextmanager
async def _running(
    signer: Signer, given: Given, *, stop_grace_s: float = 10, lame_duck_s: float = 0, **more: object
) -> AsyncIterator[Running]:
    ports = pick_ports(["rpc", "metrics"])
    settings = ServingSettings(
        listen_address=f"127.0.0.1:{ports['rpc']}",
        metrics_address=f"127.0.0.1:{ports['metrics']}",
        jwks_file=signer.jwks_file,
        stop_grace_s=stop_grace_s,
        lame_duck_s=lame_duck_s,
    )
    service = Service(name="notification", settings=settings, register=[given.register], proto_services=[NAME], **more)
    stop = asyncio.Event()
    ended = asyncio.create_task(serve(service, stop=stop))
    async with grpc.aio.insecure_channel(settings.listen_address, EAGER) as channel, asyncio.timeout(20):
        await channel.channel_ready()
        yield Running(channel, stop, ended, settings.metrics_address, signer)
        stop.set()
        await ended


class _Held:
    """A handler that waits until it is released."""

    def __init__(self) -> None:
        self.begun, self.released = asyncio.Event(), asyncio.Event()

    async def __call__(self, context: Context) -> None:
        self.begun.set()
        await self.released.wait()


async def test_a_running_call_finishes_within_the_grace_and_health_says_not_serving(signer: Signer) -> None:
    held = _Held()
    async with _running(signer, Given(held)) as running:
        health = running.watch_health(NAME)
        await _until(health, SERVING)
        call = running.list()
        await held.begun.wait()
        running.stop.set()
        await _until(health, NOT_SERVING)
        health.cancel()
        assert (await failure_of(running.list())).code() in CLOSED
        assert not running.ended.done()
        held.released.set()
        assert await call == ListNotificationsResponse()
        await running.ended


async def test_calls_are_taken_after_health_has_said_not_serving_until_callers_had_time_to_ask(signer: Signer) -> None:
    async with _running(signer, Given(), lame_duck_s=0.5) as running:
        health = running.watch_health(NAME)
        await _until(health, SERVING)
        running.stop.set()
        await _until(health, NOT_SERVING)
        assert await running.list() == ListNotificationsResponse()
        failure = await failure_of(health.read())  # it would hold up the stop
        assert (failure.code(), reason_of(failure)) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
        assert (await failure_of(running.list())).code() in CLOSED


async def test_a_call_longer_than_the_grace_is_ended_with_a_reason_and_a_time_to_come_back(signer: Signer) -> None:
    held = _Held()
    async with _running(signer, Given(held), stop_grace_s=0.5) as running:
        call = running.list()
        await held.begun.wait()
        running.stop.set()
        failure = await failure_of(call)
        assert (failure.code(), reason_of(failure)) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
        assert details_of(failure)["RetryInfo"].retry_delay.ToMilliseconds() > 0
        await running.ended


async def test_an_endless_stream_is_ended_at_once_so_that_its_reader_comes_back(signer: Signer) -> None:
    async def feed(context: Context) -> AsyncIterator[WatchNotificationsResponse]:
        yield WatchNotificationsResponse()
        await asyncio.Event().wait()

    rules = CallRules(endless_methods=frozenset({WATCH}))
    async with _running(signer, Given(stream=feed), stop_grace_s=60, rules=rules) as running:
        watch = NotificationServiceStub(running.channel).WatchNotifications(
            WatchNotificationsRequest(), metadata=signer.metadata()
        )
        await watch.read()
        running.stop.set()
        failure = await failure_of(watch.read())
        assert (failure.code(), reason_of(failure)) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
        await running.ended  # long before the grace is over, which the time limit of `_running` sees


async def test_a_drain_is_told_how_long_running_calls_still_have(signer: Signer) -> None:
    told: list[float] = []

    async def drain(grace_s: float) -> None:
        told.append(grace_s)

    async with _running(signer, Given(), stop_grace_s=7, drain=drain):
        pass
    assert told == [7]


async def test_a_service_without_its_store_is_not_serving_until_the_store_is_there(signer: Signer) -> None:
    there = asyncio.Event()

    async def probe() -> None:
        if not there.is_set():
            raise ConnectionRefusedError

    async with _running(signer, Given(), checks=(Check("Store", probe, "Start it."),)) as running:
        health = running.watch_health()
        assert (await health.read()).status == NOT_SERVING
        there.set()
        await _until(health, SERVING)
        health.cancel()


async def test_a_service_is_not_serving_before_its_first_checks_have_passed(signer: Signer) -> None:
    answer = asyncio.Event()
    async with _running(signer, Given(), checks=(Check("Store", answer.wait, "Start it."),)) as running:
        health = running.watch_health()
        assert (await health.read()).status == NOT_SERVING
        answer.set()
        await _until(health, SERVING)
        health.cancel()


async def test_metrics_are_served_and_their_port_is_free_after_the_stop(signer: Signer) -> None:
    async with _running(signer, Given()) as running:
        await running.list()
        text = await asyncio.to_thread(_read, f"http://{running.metrics_address}/metrics")
    assert 'parley_rpc_duration_seconds_count{code="OK",method="/parley.notification.v1.' in text
    with pytest.raises(OSError):
        await asyncio.to_thread(_read, f"http://{running.metrics_address}/metrics")


def _read(url: str) -> str:
    with urlopen(url, timeout=5) as answer:
        return answer.read().decode()


async def test_resources_close_in_reverse_order_after_the_last_call(signer: Signer) -> None:
    order: list[str] = []

    @asynccontextmanager
    async def resource(name: str) -> AsyncIterator[None]:
        order.append(f"open {name}")
        yield
        order.append(f"close {name}")

    async def serving(context: Context) -> None:
        order.append("call")

    resources = (resource("first"), resource("second"))
    async with _running(signer, Given(serving), resources=resources) as running:
        await running.list()
    assert order == ["open first", "open second", "call", "close second", "close first"]
