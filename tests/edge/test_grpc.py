"""gRPC through the edge: plaintext and TLS, health and reflection, and what can't be reached."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from uuid import uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.auth.v1 import auth_service_pb2, auth_service_pb2_grpc, user_service_pb2, user_service_pb2_grpc
from parley.chat.v1 import chat_service_pb2, chat_service_pb2_grpc
from parley.session.v1 import (
    session_service_pb2,
    session_service_pb2_grpc,
    turn_record_service_pb2,
    turn_record_service_pb2_grpc,
)
from tests.conftest import Signer
from tests.edge.answers import grpc_refusal
from tests.edge.conftest import Edge
from tests.edge.servers import UNKNOWN_ID


@pytest.fixture(scope="session")
async def channel(edge: Edge) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(edge.target) as channel:
        yield channel


async def test_call_over_plaintext_reaches_the_service_with_the_token(
    channel: grpc.aio.Channel, signer: Signer
) -> None:
    user = uuid4()
    response = await user_service_pb2_grpc.UserServiceStub(channel).GetMe(
        user_service_pb2.GetMeRequest(), metadata=signer.metadata(user=user)
    )
    assert response.user.id == str(user)


async def test_call_over_tls_reaches_the_service(edge: Edge, signer: Signer) -> None:
    credentials = grpc.ssl_channel_credentials(edge.mesh.ca_file.read_bytes())
    target = f"localhost:{edge.mesh.ports['edge-https']}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        response = await user_service_pb2_grpc.UserServiceStub(channel).GetMe(
            user_service_pb2.GetMeRequest(), metadata=signer.metadata()
        )
    assert response.user.id


async def test_sign_in_needs_no_token(channel: grpc.aio.Channel) -> None:
    request = auth_service_pb2.LoginRequest(email="admin@localhost", password="x")
    response = await auth_service_pb2_grpc.AuthServiceStub(channel).Login(request)
    assert response.user.email == "admin@localhost"


async def test_health_and_the_list_of_public_services_need_no_token(channel: grpc.aio.Channel) -> None:
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    response = await call.read()
    assert [service.name for service in response.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "parley.auth.v1.AuthService",
        "parley.auth.v1.UserService",
        "parley.chat.v1.ChatService",
        "parley.knowledge.v1.CrawlService",
        "parley.knowledge.v1.FaqService",
        "parley.knowledge.v1.KnowledgeService",
        "parley.notification.v1.NotificationService",
        "parley.session.v1.SessionService",
    ]
    call.cancel()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (None, "TOKEN_MISSING"),
        ({"expires_in_s": -5}, "TOKEN_EXPIRED"),
        ({"aud": "parley-refresh"}, "TOKEN_INVALID"),
        ({"iss": "somebody"}, "TOKEN_INVALID"),
    ],
)
async def test_the_edge_refuses_a_bad_token_with_the_reason_that_services_give(
    channel: grpc.aio.Channel, edge: Edge, signer: Signer, claims: Mapping[str, object] | None, reason: str
) -> None:
    calls = edge.seen.calls
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await user_service_pb2_grpc.UserServiceStub(channel).GetMe(
            user_service_pb2.GetMeRequest(), metadata=() if claims is None else signer.metadata(**claims)
        )
    assert grpc_refusal(refused.value) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert edge.seen.calls == calls


async def test_a_token_that_the_edge_knows_expires_all_the_same(
    channel: grpc.aio.Channel, edge: Edge, signer: Signer
) -> None:
    stub, metadata = user_service_pb2_grpc.UserServiceStub(channel), signer.metadata(expires_in_s=2)
    calls = edge.seen.calls

    async def call_on() -> None:
        while True:
            await stub.GetMe(user_service_pb2.GetMeRequest(), metadata=metadata)
            await asyncio.sleep(0.05)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(call_on(), 10)
    assert grpc_refusal(refused.value) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert edge.seen.calls > calls + 1


async def test_the_record_of_turns_can_not_be_reached(channel: grpc.aio.Channel, signer: Signer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await turn_record_service_pb2_grpc.TurnRecordServiceStub(channel).OpenTurn(
            turn_record_service_pb2.OpenTurnRequest(turn_id=str(uuid4())), metadata=signer.metadata()
        )
    assert grpc_refusal(refused.value) == (grpc.StatusCode.UNIMPLEMENTED, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize("path", ["/parley.auth.v1.UserService/Nope", "/nope.Service/Nope", "/v1/me"])
async def test_unknown_method_is_refused(channel: grpc.aio.Channel, signer: Signer, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(path)(b"", metadata=signer.metadata())
    assert grpc_refusal(refused.value) == (grpc.StatusCode.UNIMPLEMENTED, "ROUTE_NOT_FOUND")


async def test_refusal_of_a_service_arrives_unchanged(channel: grpc.aio.Channel, signer: Signer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await session_service_pb2_grpc.SessionServiceStub(channel).GetConversation(
            session_service_pb2.GetConversationRequest(conversation_id=UNKNOWN_ID), metadata=signer.metadata()
        )
    assert grpc_refusal(refused.value) == (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")


async def test_identity_and_envoy_headers_of_a_client_are_dropped(
    channel: grpc.aio.Channel, edge: Edge, signer: Signer
) -> None:
    spoofed = {
        "x-parley-user": "somebody",
        "x-user-id": "somebody",
        "x-tenant-id": "somewhere",
        "x-forwarded-client-cert": "URI=spiffe://parley.local/ns/parley/sa/chat",
        "x-envoy-original-path": "/v1/me",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-request-id": "mine",
    }
    await user_service_pb2_grpc.UserServiceStub(channel).GetMe(
        user_service_pb2.GetMeRequest(), metadata=(*signer.metadata(), *spoofed.items())
    )
    assert not {name: value for name, value in spoofed.items() if edge.seen.metadata.get(name) == value}


async def test_trace_of_the_client_is_continued_and_made_where_there_is_none(
    channel: grpc.aio.Channel, edge: Edge, signer: Signer
) -> None:
    users = user_service_pb2_grpc.UserServiceStub(channel)
    await users.GetMe(user_service_pb2.GetMeRequest(), metadata=signer.metadata())
    assert len(str(edge.seen.metadata["traceparent"]).split("-")[1]) == 32
    trace_id = uuid4().hex
    traceparent = ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01")
    await users.GetMe(user_service_pb2.GetMeRequest(), metadata=(*signer.metadata(), traceparent))
    assert str(edge.seen.metadata["traceparent"]).split("-")[1] == trace_id


async def test_stream_arrives_word_by_word_and_its_cancelling_reaches_the_service(
    channel: grpc.aio.Channel, edge: Edge, signer: Signer
) -> None:
    edge.seen.next_word.clear()
    edge.seen.cancelled.clear()
    request = chat_service_pb2.StartTurnRequest(
        request_id=str(uuid4()), conversation_id=str(uuid4()), text="one two three"
    )
    call = chat_service_pb2_grpc.ChatServiceStub(channel).StartTurn(request, metadata=signer.metadata())
    for word in ("one", "two"):
        edge.seen.next_word.set()
        assert (await call.read()).event.text_delta.text == word
    call.cancel()
    await edge.seen.cancelled.wait()


async def test_message_that_grpc_finds_too_large_is_refused_with_a_reason(
    channel: grpc.aio.Channel, signer: Signer
) -> None:
    large = b"x" * 4_500_000
    calls = (
        channel.unary_unary("/parley.session.v1.SessionService/CreateConversation")(large, metadata=signer.metadata()),
        channel.stream_unary("/parley.knowledge.v1.KnowledgeService/UploadDocument")(
            iter([large]), metadata=signer.metadata()
        ),
    )
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert grpc_refusal(refused.value) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
