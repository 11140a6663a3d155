"""The service as the stack starts it: a process of its own, with certificates and its own database role."""

import asyncio
import json
import signal
import socket
import ssl
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from stack.mesh import PROJECT, Mesh
from stack.services import environment

NAME = "notification-1"


async def _start(mesh: Mesh, *arguments: str, **changed: str) -> Process:
    env = environment(mesh, "notification", NAME) | changed
    command = (sys.executable, "-m", "services.notification", *arguments)
    return await create_subprocess_exec(*command, env=env, cwd=PROJECT, stdout=PIPE, stderr=PIPE)


async def _run(mesh: Mesh, *arguments: str, **changed: str) -> tuple[int | None, str]:
    process = await _start(mesh, *arguments, **changed)
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, (output + errors).decode()


def _channel(mesh: Mesh) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        mesh.ca_file.read_bytes(), mesh.key_file("operator").read_bytes(), mesh.cert_file("operator").read_bytes()
    )
    options = [("grpc.ssl_target_name_override", "notification")]
    return grpc.aio.secure_channel(mesh.address(NAME), credentials, options)


@pytest.fixture(scope="module")
async def process(postgres: Mesh) -> AsyncIterator[Process]:
    """Running and ready, although there is no NATS."""
    process = await _start(postgres)
    try:
        async with _channel(postgres) as channel, asyncio.timeout(30):
            watch = HealthStub(channel).Watch(HealthCheckRequest(), wait_for_ready=True)
            while (await watch.read()).status != HealthCheckResponse.SERVING:
                pass
            watch.cancel()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=lambda version: version.name)
async def test_only_tls_1_3_is_spoken(postgres: Mesh, process: Process, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=postgres.ca_file)
    context.load_cert_chain(postgres.cert_file("edge"), postgres.key_file("edge"))
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    agreed = await asyncio.to_thread(_handshake, postgres.ports[NAME], context)
    assert agreed == ("TLSv1.3" if version is ssl.TLSVersion.TLSv1_3 else None)


def _handshake(port: int, context: ssl.SSLContext) -> str | None:
    """The TLS version that was agreed on; None if the server refused."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="notification") as secure:
                return secure.version()
        except ssl.SSLError:
            return None


async def test_it_stops_on_the_signal_and_logs_json_alone(process: Process) -> None:
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 8)
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "parley.serving"] == ["serving", "ready", "stopping"]
    assert {line["service"] for line in lines} == {"notification"}


async def test_check_says_what_works_and_what_is_needed_only_later(postgres: Mesh) -> None:
    status, output = await _run(postgres, "--check")
    assert status == 1  # there is no NATS, without which the service is ready all the same
    said = [line for line in output.splitlines() if not line.startswith("{")]
    assert said[0] == "ok      PostgreSQL"
    assert said[1].startswith("failed  NATS: ")
    assert said[2].strip() == "Start NATS and check PARLEY_NATS_URL and the three PARLEY_TLS_*_FILE."


async def test_check_says_what_to_do_when_it_does_not(postgres: Mesh) -> None:
    nowhere = "postgresql://notification@127.0.0.1:1/parley"
    status, output = await _run(postgres, "--check", PARLEY_POSTGRES_DSN=nowhere)
    assert (status, output.splitlines()[1].strip()) == (
        1,
        "Start PostgreSQL and check PARLEY_POSTGRES_DSN and its password file.",
    )


async def test_what_is_missing_is_named_at_once(postgres: Mesh) -> None:
    status, output = await _run(postgres, PARLEY_NATS_URL="", PARLEY_LISTEN_ADDRESS="")
    assert status == 1
    assert output.splitlines() == [
        "notification can't start:",
        "PARLEY_LISTEN_ADDRESS is not set",
        "PARLEY_NATS_URL is not set",
    ]
