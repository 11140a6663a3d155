"""Start, readiness and stop of a service process.

`run` is the last line of every __main__: it starts the resources in order, serves until SIGTERM or SIGINT, then stops:
1. health says NOT_SERVING, and calls are taken as before for `lame_duck_s`: callers that ask about health go elsewhere;
2. the listener closes, the others hear it by GOAWAY; streams without an end of their own end with SERVICE_UNAVAILABLE;
3. running calls finish, at most `stop_grace_s`; whatever is left then ends with SERVICE_UNAVAILABLE too;
4. the resources close in reverse order.
`--check` runs all checks once instead and prints, for each failure, what to do next.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

import grpc
import uvloop
from google.protobuf.internal import api_implementation
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import start_http_server

from services.shared.background import background
from services.shared.serving import reflection, telemetry
from services.shared.serving.identity import AllowList, TokenVerifier
from services.shared.serving.interceptor import CallInterceptor, CallRules
from services.shared.serving.settings import ServingSettings, SettingsError
from services.shared.serving.tls import server_credentials

POSTGRES_ADVICE = "Start PostgreSQL and check PARLEY_POSTGRES_DSN and its password file."
NATS_ADVICE = "Start NATS and check PARLEY_NATS_URL and the three PARLEY_TLS_*_FILE."
_log = logging.getLogger("parley.serving")
_CHECK_EVERY_S = 2.0
_CHECK_WITHIN_S = 5.0
_REFUSING_S = 0.3  # the end of the grace, in which calls that did not finish are told so
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # The edge takes 32 KiB of headers and repeats a REST path; beyond this gRPC refuses by listing the headers.
    ("grpc.max_metadata_size", 80 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
]


@dataclass(frozen=True)
class Check:
    """One thing that the service depends on. `probe` raises when it is not there; `advice` says what to do."""

    name: str
    probe: Callable[[], Awaitable[object]]
    advice: str
    # False: the service can be ready without it, and only `--check` asks.
    needed: bool = True


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service, wired: what it registers, what it needs open while it serves, what makes it ready."""

    name: str
    settings: ServingSettings
    register: Sequence[Callable[[grpc.aio.Server], None]]
    # Full proto names of what `register` adds, for health and reflection.
    proto_services: Sequence[str]
    rules: CallRules = field(default_factory=CallRules)
    # Opened in order, closed in reverse order.
    resources: Sequence[AbstractAsyncContextManager[object]] = ()
    checks: Sequence[Check] = ()
    # Called when the service is to stop, with the seconds that running calls still have.
    drain: Callable[[float], Awaitable[None]] | None = None


def run(name: str, wire: Callable[[], Service]) -> None:
    """Wire the service and serve it, or check it with `--check`; end the process with a status."""
    if api_implementation.Type() != "upb":
        sys.exit("protobuf runs without its C runtime: reinstall the protobuf wheel for this Python.")
    telemetry.set_up(name)
    try:
        status = uvloop.run(_main(wire))
    except SettingsError as error:
        sys.exit(f"{name} can't start:\n{error}")
    telemetry.shut_down()
    sys.stdout.flush()
    os._exit(status)  # all is closed; gRPC's own exit handler would wait two seconds more for timers of old channels


async def _main(wire: Callable[[], Service]) -> int:
    service = wire()
    if "--check" in sys.argv[1:]:
        return await _print_checks(service)
    await serve(service)
    return 0


async def serve(service: Service, *, stop: asyncio.Event | None = None) -> None:
    """Serve until `stop` is set; without it, until SIGTERM or SIGINT."""
    stop = stop or _stop_on_signals()
    settings = service.settings
    async with AsyncExitStack() as opened:
        for resource in service.resources:
            await opened.enter_async_context(resource)
        server, healths, calls = _server(service)
        await healths.set("", health_pb2.HealthCheckResponse.NOT_SERVING)  # until the first checks have passed
        await server.start()
        host, _, port = settings.metrics_address.rpartition(":")
        metrics, _ = start_http_server(int(port), host)
        opened.callback(metrics.server_close)
        opened.push_async_callback(asyncio.to_thread, metrics.shutdown)
        # What is there by now stays, and calls make few cycles: looking through it all again and again costs a tenth.
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        async with background(partial(_watch_readiness, service, healths)):
            _log.info("serving", extra={"facts": {"address": settings.listen_address}})
            await stop.wait()
        _log.info("stopping")
        await healths.enter_graceful_shutdown()
        await asyncio.sleep(settings.lame_duck_s)
        calls.end_endless_streams()
        refusing = asyncio.get_running_loop().call_later(settings.stop_grace_s - _REFUSING_S, calls.end_all)
        drain = asyncio.ensure_future(service.drain(settings.stop_grace_s)) if service.drain else None
        await server.stop(settings.stop_grace_s)
        refusing.cancel()
        if drain:
            await drain


def _server(service: Service) -> tuple[grpc.aio.Server, health.aio.HealthServicer, CallInterceptor]:
    settings = service.settings
    credentials = server_credentials(settings)
    allow_list = AllowList() if credentials else None
    calls = CallInterceptor(TokenVerifier(settings.jwks_file), service.rules, allow_list, settings.max_stream_s)
    keepalive_ms = round(settings.keepalive_s * 1000)
    pings = [
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 3),
    ]
    server = grpc.aio.server(interceptors=[*telemetry.server_interceptors(), calls], options=[*_OPTIONS, *pings])
    for register in service.register:
        register(server)
    healths = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healths, server)
    if settings.reflection:
        reflection.enable(server, service.proto_services)
    if credentials:
        server.add_secure_port(settings.listen_address, credentials)
    else:
        server.add_insecure_port(settings.listen_address)
    return server, healths, calls


async def _watch_readiness(service: Service, healths: health.aio.HealthServicer) -> None:
    was_ready: bool | None = None
    needed = [check for check in service.checks if check.needed]
    while True:
        faults = [fault for fault in await asyncio.gather(*map(_fault, needed)) if fault]
        ready = not faults
        if ready != was_ready:
            _log.info("ready" if ready else "not ready", extra={"facts": {"faults": faults}})
            statuses = health_pb2.HealthCheckResponse
            for name in ("", *service.proto_services):
                await healths.set(name, statuses.SERVING if ready else statuses.NOT_SERVING)
            was_ready = ready
        await asyncio.sleep(_CHECK_EVERY_S if ready else _CHECK_EVERY_S / 10)


async def _fault(check: Check) -> str | None:
    try:
        await asyncio.wait_for(check.probe(), _CHECK_WITHIN_S)
    except Exception as error:  # whatever a driver raises: the part is not there
        return f"{check.name}: {type(error).__name__}: {error}"
    return None


async def _print_checks(service: Service) -> int:
    faults = await asyncio.gather(*map(_fault, service.checks))
    for check, fault in zip(service.checks, faults, strict=True):
        print(f"failed  {fault}\n        {check.advice}" if fault else f"ok      {check.name}")
    return 1 if any(faults) else 0


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
