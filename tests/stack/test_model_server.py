"""The real Triton: who may ask it, for what, and what happens when one of its models dies."""

import asyncio
import json
import os
import signal
import socket
import ssl

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from stack import authority, triton
from stack.mesh import Mesh, Options
from tests.stack.kserve import TIMEOUT_S, Refused, open_channel, order, text_of

CLOSED = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="echo"),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="echo"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1),
    "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": service_pb2.CudaSharedMemoryRegisterRequest(name="x", byte_size=1),
    "CudaSharedMemoryUnregister": service_pb2.CudaSharedMemoryUnregisterRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
}


@pytest.mark.parametrize("call", CLOSED)
async def test_call_that_manages_the_server_is_closed(models, call):
    for metadata in ((), (("triton-grpc-protocol-closed", "guess"),)):
        with pytest.raises(grpc.aio.AioRpcError, match="protocol is restricted"):
            await getattr(models.stub, call)(CLOSED[call], timeout=TIMEOUT_S, metadata=metadata)
    ready = await models.stub.ModelReady(service_pb2.ModelReadyRequest(name="echo"), timeout=TIMEOUT_S)
    assert ready.ready


async def is_served(channel: grpc.aio.Channel) -> bool:
    async with channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False
        return True


async def test_only_chat_and_knowledge_are_served(triton_mesh):
    served = {name for name in authority.WORKLOADS if await is_served(open_channel(triton_mesh, name))}
    assert served == {"chat", "knowledge"}


async def test_chat_of_another_mesh_is_refused(triton_mesh, tmp_path):
    other = Mesh(data_dir=tmp_path, options=Options(), ports={})
    authority.ensure(other)
    assert not await is_served(open_channel(triton_mesh, "chat", owner=other))


async def test_client_without_a_certificate_is_refused(triton_mesh):
    credentials = grpc.ssl_channel_credentials(triton_mesh.ca_file.read_bytes())
    options = [("grpc.ssl_target_name_override", "triton")]
    assert not await is_served(grpc.aio.secure_channel(triton_mesh.address("triton"), credentials, options))


async def test_tls_before_1_3_is_refused(triton_mesh):
    client = ssl.create_default_context(cafile=triton_mesh.ca_file)
    client.load_cert_chain(triton_mesh.cert_file("chat"), triton_mesh.key_file("chat"))
    client.set_alpn_protocols(["h2"])
    assert shake_hands(triton_mesh, client) == "TLSv1.3"
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(triton_mesh, client)


def shake_hands(mesh: Mesh, client: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection(("127.0.0.1", mesh.ports["triton"]), timeout=5) as plain,
        client.wrap_socket(plain, server_hostname="triton") as secure,
    ):
        return secure.version()


def status(mesh: Mesh) -> dict:
    return json.loads((mesh.data_dir / "status.json").read_text())["parts"]["triton"]


async def test_death_of_one_model_ends_its_turns_and_brings_all_models_back(triton_mesh, models):
    before = psutil.Process(status(triton_mesh)["pid"])
    [process] = [child for child in before.children() if "/models/echo/" in " ".join(child.cmdline())]
    turn = models.start("echo", order(100_000, 50))
    assert await turn.next_piece()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises((Refused, grpc.aio.AioRpcError)):
        await turn.pieces()
    async with asyncio.timeout(TIMEOUT_S):
        while (now := status(triton_mesh))["restarts"] != 1 or now["state"] != "ready":
            await asyncio.sleep(0.05)
    assert not before.is_running()
    await models.stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=TIMEOUT_S, wait_for_ready=True)
    assert text_of(await models.say("echo", order(3, 0))) == "1 2 3"
    assert (await models.embed("text")).shape == (1, 384)


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, "http://collector:4318/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:9/", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http://collector:9/v1/traces",
        ),
    ],
    ids=["gRPC endpoint", "HTTP endpoint"],
)
def test_spans_go_where_those_of_the_services_go(environment, url):
    assert f"--trace-config=opentelemetry,url={url}" in triton.tracing_options(environment)


def test_without_an_endpoint_nothing_is_traced():
    assert not list(triton.tracing_options({}))
