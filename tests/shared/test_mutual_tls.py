"""Who gets into the mesh: a real server, as every service starts it, and callers with all sorts of certificates."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley.notification.v1.notification_service_pb2 import ListNotificationsRequest
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from services.shared.serving.channel import metadata_for, open_channel
from services.shared.serving.server import Service, serve
from services.shared.serving.settings import ServingSettings
from stack import authority
from stack.mesh import Mesh, Options, pick_ports
from tests.conftest import Signer
from tests.refusals import failure_of, reason_of
from tests.shared.serving import NAME, Given


def _mesh(folder: Path) -> Mesh:
    mesh = Mesh(data_dir=folder, options=Options(), ports=pick_ports(["notification", "metrics"]))
    authority.ensure(mesh)
    return mesh


def _settings(mesh: Mesh, holder: str, jwks_file: Path) -> ServingSettings:
    return ServingSettings(
        listen_address=mesh.address("notification"),
        metrics_address=mesh.address("metrics"),
        jwks_file=jwks_file,
        tls_ca_file=mesh.ca_file,
        tls_cert_file=mesh.cert_file(holder),
        tls_key_file=mesh.key_file(holder),
    )


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> AsyncIterator[Mesh]:
    """A mesh with one service, `notification`, which the edge may call."""
    mesh = _mesh(tmp_path_factory.mktemp("tls"))
    settings = _settings(mesh, "notification", signer.jwks_file)
    service = Service(name="notification", settings=settings, register=[Given().register], proto_services=[NAME])
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(service, stop=stop))
    async with open_channel(mesh.address("notification"), "notification", _of(mesh, "edge", signer)) as channel:
        async with asyncio.timeout(10):
            await channel.channel_ready()
    yield mesh
    stop.set()
    await serving


def _of(mesh: Mesh, holder: str, signer: Signer) -> ServingSettings:
    return _settings(mesh, holder, signer.jwks_file)


async def _call(channel: grpc.aio.Channel, signer: Signer) -> object:
    async with channel:
        return await NotificationServiceStub(channel).ListNotifications(
            ListNotificationsRequest(), metadata=metadata_for(signer.token()), timeout=5
        )


async def test_a_service_on_the_list_gets_through(mesh: Mesh, signer: Signer) -> None:
    await _call(open_channel(mesh.address("notification"), "notification", _of(mesh, "edge", signer)), signer)


@pytest.mark.parametrize("holder", ["chat", "session", "notification", "operator", "nats"])
async def test_a_service_that_is_not_on_the_list_is_refused(mesh: Mesh, signer: Signer, holder: str) -> None:
    channel = open_channel(mesh.address("notification"), "notification", _of(mesh, holder, signer))
    error = await failure_of(_call(channel, signer))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "PEER_NOT_ALLOWED")
    assert holder in error.details()


async def test_the_list_holds_for_every_proto_service(mesh: Mesh, signer: Signer) -> None:
    health = "grpc.health.v1.Health"
    for holder, allowed in (("operator", True), ("edge", True), ("chat", False)):
        async with open_channel(mesh.address("notification"), "notification", _of(mesh, holder, signer)) as channel:
            call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            if allowed:
                assert (await call).status == health_pb2.HealthCheckResponse.SERVING
            else:
                error = await failure_of(call)
                assert reason_of(error) == "PEER_NOT_ALLOWED"
                assert health in error.details()


async def test_a_caller_without_a_certificate_is_refused(mesh: Mesh, signer: Signer) -> None:
    credentials = grpc.ssl_channel_credentials(mesh.ca_file.read_bytes())
    options = [("grpc.ssl_target_name_override", "notification")]
    error = await failure_of(_call(grpc.aio.secure_channel(mesh.address("notification"), credentials, options), signer))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "")


async def test_a_caller_in_plaintext_is_refused(mesh: Mesh, signer: Signer) -> None:
    error = await failure_of(_call(grpc.aio.insecure_channel(mesh.address("notification")), signer))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_of_another_authority_is_refused(
    mesh: Mesh, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    foreign = _mesh(tmp_path_factory.mktemp("foreign"))
    theirs = replace(_of(foreign, "edge", signer), tls_ca_file=mesh.ca_file)
    error = await failure_of(_call(open_channel(mesh.address("notification"), "notification", theirs), signer))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "")


async def test_a_server_of_another_authority_is_not_trusted(
    mesh: Mesh, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    foreign = _mesh(tmp_path_factory.mktemp("foreign"))
    ours = replace(_of(mesh, "edge", signer), tls_ca_file=foreign.ca_file)
    error = await failure_of(_call(open_channel(mesh.address("notification"), "notification", ours), signer))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_with_another_name_is_not_trusted(mesh: Mesh, signer: Signer) -> None:
    channel = open_channel(mesh.address("notification"), "session", _of(mesh, "edge", signer))
    error = await failure_of(_call(channel, signer))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
