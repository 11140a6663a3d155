"""Readers that stop reading: they cost little memory, and neither the turn nor anybody else waits for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from parley.chat.v1.chat_service_pb2 import ResumeTurnRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from stack.memory import pss_bytes
from tests.mesh.following import Follower, cancel, following
from tests.mesh.running import RunningMesh, User
from tests.mesh.test_turns import events_of, new_conversation, question
from tests.refusals import details_of, failure_of, reason_of

READERS, TURNS = 50, 20
"""What a user may have open at a replica, and running; services/chat/settings.py."""
TOKENS = 3000
LONG = f"tokens={TOKENS} tokens_per_s=300"
MIB = 2**20
WINDOW_BYTES = 1024
"""Of a reader: a small part of its answer."""
MOST_MIB = {"envoy": 16, "chat-1": 25}
"""At the edge, two windows of 64 KiB and two buffers of 32 KiB for each, and what its allocator keeps."""
LONGEST_GAP_S = 1.0
"""On a machine that does other things."""


@asynccontextmanager
async def reading_one_event(
    mesh: RunningMesh, user: User, turn_id: str, readers: int
) -> AsyncIterator[list[grpc.aio.UnaryStreamCall]]:
    """So many readers of a turn who took the first event and no other."""
    options = [
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(mesh.http.removeprefix("http://"), options) as channel:
        chat, request = ChatServiceStub(channel), ResumeTurnRequest(turn_id=turn_id)
        calls = [chat.ResumeTurn(request, metadata=user.metadata) for _ in range(readers)]
        await asyncio.gather(*(call.read() for call in calls))
        yield calls
        for call in calls:
            call.cancel()


def memory(mesh: RunningMesh) -> dict[str, float]:
    """PSS in MiB of the edge and of chat."""
    parts = mesh.status()["parts"]
    return {name: pss_bytes(parts[name]["pid"]) / MIB for name in ("envoy", "chat-1")}


async def test_readers_of_a_long_turn_that_stop_reading_cost_little_and_slow_nobody(
    mesh: Any, edge: grpc.aio.Channel, user: User
) -> None:
    before = memory(mesh)
    asker = Follower(edge, user, question(await new_conversation(edge, user), LONG))
    async with following(asker) as done:
        await asker.until("1")
        async with reading_one_event(mesh, user, asker.turn_id, READERS - 1) as calls:
            await done
            more = {name: mib - before[name] for name, mib in memory(mesh).items()}
            # Who reads on finds every event in its place.
            rest = [response.event for response in await everything(calls[0])]
    print(
        f"stalled readers of {len(asker.events)} events: {more}; longest gap of the other {asker.longest_gap_s:.3f} s"
    )
    assert all(more[name] < most for name, most in MOST_MIB.items()), more
    assert asker.longest_gap_s < LONGEST_GAP_S
    assert len(asker.events) > TOKENS / 4
    assert [event.SerializeToString() for event in rest] == [event.SerializeToString() for event in asker.events[1:]]


async def everything(call: grpc.aio.UnaryStreamCall) -> list[Any]:
    found = []
    while (response := await call.read()) is not grpc.aio.EOF:
        found.append(response)
    return found


async def test_more_streams_than_a_user_may_have_are_refused(mesh: Any, edge: grpc.aio.Channel, user: User) -> None:
    request = question(await new_conversation(edge, user), "tokens=3000 tokens_per_s=2")
    asker = Follower(edge, user, request)
    async with following(asker):
        await asker.until("1")
        async with reading_one_event(mesh, user, asker.turn_id, READERS - 1):
            refused = await failure_of(events_of(edge, user, request))
            assert_is_limit(refused, "TOO_MANY_READERS", READERS)
        await cancel(edge, user, asker.turn_id)


async def test_more_turns_than_a_user_may_have_are_refused(edge: grpc.aio.Channel, user: User) -> None:
    conversation_id = await new_conversation(edge, user)
    asked = [question(conversation_id, "tokens=3000 tokens_per_s=2") for _ in range(TURNS)]
    turns = [Follower(edge, user, request) for request in asked]
    async with following(*turns):
        await asyncio.gather(*(turn.until("1") for turn in turns))
        one_more = question(conversation_id, "one more")
        refused = await failure_of(events_of(edge, user, one_more))
        assert_is_limit(refused, "TOO_MANY_TURNS", TURNS)
        await cancel(edge, user, turns[0].turn_id)
        assert (await events_of(edge, user, one_more))[-1].HasField("completed")
        await asyncio.gather(*(cancel(edge, user, turn.turn_id) for turn in turns[1:]))


def assert_is_limit(refused: grpc.aio.AioRpcError, reason: str, limit: int) -> None:
    assert (refused.code(), reason_of(refused)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
    details = details_of(refused)
    assert details["ErrorInfo"].metadata["limit"] == str(limit)
    assert details["RetryInfo"].retry_delay.ToMilliseconds() > 0
