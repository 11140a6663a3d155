"""Inside the mesh: nobody without a certificate, nobody who is not on the list, nothing but TLS 1.3."""

import socket
import ssl
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.refusals import reason_of

SERVICES = ("auth", "session", "chat", "knowledge", "notification")
METHODS = {
    "auth": "/parley.auth.v1.UserService/GetMe",
    "session": "/parley.session.v1.SessionService/ListConversations",
    "chat": "/parley.chat.v1.ChatService/StartTurn",
    "knowledge": "/parley.knowledge.v1.KnowledgeService/ListDocuments",
    "notification": "/parley.notification.v1.NotificationService/ListNotifications",
}


def address(mesh: Any, part: str) -> str:
    return str(mesh.endpoints["parts"][part][0])


def channel(mesh: Any, part: str, caller: str | None) -> grpc.aio.Channel:
    authority, key, certificate = mesh.certificate(caller or "edge")
    pair = (key, certificate) if caller else (None, None)
    credentials = grpc.ssl_channel_credentials(authority, *pair)
    options = [("grpc.ssl_target_name_override", part), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address(mesh, part), credentials, options)


@pytest.mark.parametrize("part", [*SERVICES, "triton"])
async def test_a_client_without_a_certificate_is_refused(mesh: Any, part: str) -> None:
    async with channel(mesh, part, None) as anonymous:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anonymous.unary_unary(METHODS.get(part, "/inference.GRPCInferenceService/ServerLive"))(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # no connection


@pytest.mark.parametrize("part", SERVICES)
async def test_a_service_that_is_not_on_the_list_is_refused(mesh: Any, part: str, user: Any) -> None:
    """notification calls nobody: its certificate opens nothing, even with a good token."""
    caller = "notification" if part != "notification" else "chat"
    async with channel(mesh, part, caller) as peer:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await peer.unary_unary(METHODS[part])(b"", metadata=user.metadata, timeout=5)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(refused.value) == "PEER_NOT_ALLOWED"


async def test_only_chat_reaches_the_record_of_turns(mesh: Any, user: Any) -> None:
    method = "/parley.session.v1.TurnRecordService/OpenTurn"
    async with channel(mesh, "session", "edge") as edge, channel(mesh, "session", "chat") as chat:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await edge.unary_unary(method)(b"", metadata=user.metadata, timeout=5)
        assert reason_of(refused.value) == "PEER_NOT_ALLOWED"
        with pytest.raises(grpc.aio.AioRpcError) as admitted:
            await chat.unary_unary(method)(b"", metadata=user.metadata, timeout=5)
        assert reason_of(admitted.value) == "INVALID_FIELD"  # past the list: the empty request is judged


async def test_the_model_server_trusts_chat_and_knowledge_alone(mesh: Any) -> None:
    for caller, allowed in (("chat", True), ("knowledge", True), ("session", False), ("edge", False)):
        async with channel(mesh, "triton", caller) as peer:
            live = peer.unary_unary("/inference.GRPCInferenceService/ServerLive")
            if allowed:
                assert await live(b"", timeout=5)
            else:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await live(b"", timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("part", [*SERVICES, "triton"])
def test_nothing_older_than_tls_1_3_is_spoken(mesh: Any, part: str) -> None:
    caller = "chat" if part in ("session", "knowledge", "triton") else "edge"
    host, port = address(mesh, part).split(":")
    tls = mesh.data_dir / "tls"
    for version, spoken in ((ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)):
        context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
        context.load_cert_chain(tls / f"{caller}.pem", tls / f"{caller}-key.pem")
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port)), timeout=5) as plain:
            if spoken:
                with context.wrap_socket(plain, server_hostname=part) as wrapped:
                    assert wrapped.version() == "TLSv1.3"
            else:
                with pytest.raises(ssl.SSLError):
                    context.wrap_socket(plain, server_hostname=part)


async def test_plaintext_is_refused(mesh: Any) -> None:
    async with grpc.aio.insecure_channel(address(mesh, "session")) as plain:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(plain).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
