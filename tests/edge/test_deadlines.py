"""How long a call may take through the edge, and that the service behind it is given less than the caller has."""

import asyncio
import time
from uuid import uuid4

import grpc
import httpx
import pytest

from parley.auth.v1 import user_service_pb2, user_service_pb2_grpc
from parley.chat.v1 import chat_service_pb2, chat_service_pb2_grpc
from parley.knowledge.v1 import knowledge_service_pb2, knowledge_service_pb2_grpc
from tests.conftest import Signer
from tests.edge.answers import grpc_refusal
from tests.edge.conftest import Edge

UNARY_S, STREAM_S = 15, 3600
OFFSET_S = 0.02
TRAVEL_S = 0.5
"""What a busy machine may take from the client to the handler."""
CLOCKS_S = 0.015
"""By how much gRPC may err: it reads two clocks one after the other, and a busy machine may halt it between them."""


async def time_left(edge: Edge, signer: Signer, timeout_s: float | None) -> float:
    """Which a unary call has when it reaches the service."""
    async with grpc.aio.insecure_channel(edge.target) as channel:
        users = user_service_pb2_grpc.UserServiceStub(channel)
        await users.GetMe(user_service_pb2.GetMeRequest(), metadata=signer.metadata(), timeout=timeout_s)
    return edge.seen.time_left_s


@pytest.mark.parametrize(("asked_s", "given_s"), [(5, 5 - OFFSET_S), (None, UNARY_S), (3600, UNARY_S - OFFSET_S)])
async def test_the_service_has_less_time_than_the_caller_and_never_more_than_the_edge_allows(
    edge: Edge, signer: Signer, asked_s: float | None, given_s: float
) -> None:
    left_s = await time_left(edge, signer, asked_s)
    assert given_s - TRAVEL_S < left_s <= given_s + CLOCKS_S


async def test_a_stream_without_a_deadline_gets_an_hour(edge: Edge, signer: Signer) -> None:
    edge.seen.next_word.set()
    request = chat_service_pb2.StartTurnRequest(request_id=str(uuid4()), conversation_id=str(uuid4()), text="one")
    async with grpc.aio.insecure_channel(edge.target) as channel:
        call = chat_service_pb2_grpc.ChatServiceStub(channel).StartTurn(request, metadata=signer.metadata())
        assert [answer.event.text_delta.text async for answer in call] == ["one"]
    assert STREAM_S - TRAVEL_S < edge.seen.time_left_s <= STREAM_S + CLOCKS_S


async def test_a_call_over_rest_gets_a_deadline_too(edge: Edge, rest: httpx.AsyncClient) -> None:
    await rest.get("/v1/me")
    assert UNARY_S - TRAVEL_S < edge.seen.time_left_s <= UNARY_S + CLOCKS_S


async def test_work_stops_within_100_ms_of_the_callers_deadline_and_the_service_still_says_why(
    edge: Edge, signer: Signer
) -> None:
    edge.seen.cancelled.clear()
    request = knowledge_service_pb2.SearchRequest(query="endless")
    async with grpc.aio.insecure_channel(edge.target) as channel:
        await channel.channel_ready()
        search = knowledge_service_pb2_grpc.KnowledgeServiceStub(channel).Search
        ends_at_s = time.monotonic() + 1
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await search(request, metadata=signer.metadata(), timeout=1)
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + ends_at_s + 0.1 - time.monotonic()):
            await edge.seen.cancelled.wait()
    assert grpc_refusal(late.value) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
