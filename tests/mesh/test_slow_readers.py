"""Readers that stop reading: they cost little memory, and nobody else waits for them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from parley.chat.v1.chat_service_pb2 import GetTurnRequest, TurnOptions
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import TurnState
from stack.memory import pss_bytes
from tests.mesh.running import RunningMesh, User, register
from tests.mesh.test_turns import new_conversation, question

STALLED = 50
USERS = 5
MIB = 2**20
FAST = "tokens=1000 tokens_per_s=0"
WINDOW_BYTES = 1024
"""Of a reader: a small part of its answer."""
STEADY = "tokens=100 tokens_per_s=50"
MOST_MIB = {"envoy": 10, "chat-1": 25}
LONGEST_GAP_S = 1.0
"""On a machine that does other things."""


@asynccontextmanager
async def stalled(mesh: RunningMesh, users: list[User]) -> AsyncIterator[Sequence[grpc.aio.UnaryStreamCall]]:
    """Readers of turns that have ended, who took the first event and no other."""
    options = [
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(mesh.http.removeprefix("http://"), options) as channel:
        calls = await asyncio.gather(*(_left(channel, users[n % len(users)]) for n in range(STALLED)))
        yield calls
        for call in calls:
            call.cancel()


async def _left(channel: grpc.aio.Channel, user: User) -> grpc.aio.UnaryStreamCall:
    """A turn that has ended for everybody but this reader."""
    chat = ChatServiceStub(channel)
    fast = TurnOptions(model="echo", max_output_tokens=1000, search=False)
    request = question(await new_conversation(channel, user), FAST, options=fast)
    call = chat.StartTurn(request, metadata=user.metadata)
    turn = GetTurnRequest(turn_id=(await call.read()).event.turn_id)
    while (await chat.GetTurn(turn, metadata=user.metadata)).turn.state != TurnState.TURN_STATE_COMPLETED:
        await asyncio.sleep(0.5)
    return call


async def longest_gap_s(edge: grpc.aio.Channel, user: User) -> float:
    """Between two pieces of a steady answer that is read as it comes."""
    request = question(await new_conversation(edge, user), STEADY)
    clock, gaps, last = asyncio.get_running_loop().time, [], 0.0
    async for _ in ChatServiceStub(edge).StartTurn(request, metadata=user.metadata):
        gaps.append(clock() - (last or clock()))
        last = clock()
    return max(gaps)


def memory(mesh: RunningMesh) -> dict[str, float]:
    """PSS in MiB of the edge and of chat."""
    parts = mesh.status()["parts"]
    return {name: pss_bytes(parts[name]["pid"]) / MIB for name in ("envoy", "chat-1")}


async def test_fifty_readers_that_stop_reading_cost_little_and_slow_nobody(mesh: Any, edge: grpc.aio.Channel) -> None:
    users = [await register(edge) for _ in range(USERS)]
    alone_s = await longest_gap_s(edge, users[0])
    before = memory(mesh)
    async with stalled(mesh, users) as calls:
        more = {name: mib - before[name] for name, mib in memory(mesh).items()}
        gap_s = await longest_gap_s(edge, users[0])
        # Who reads on finds every event in its place.
        unread = await everything(calls[0])
        rest = [response.event.sequence for response in unread]
    assert sum(response.ByteSize() for response in unread) > 4 * WINDOW_BYTES
    print(f"{STALLED} stalled readers: {more}; longest gap of another: {gap_s:.3f} s, without them {alone_s:.3f} s")
    assert all(more[name] < most for name, most in MOST_MIB.items()), more
    assert gap_s < LONGEST_GAP_S
    assert rest == list(range(2, len(rest) + 2))


async def everything(call: grpc.aio.UnaryStreamCall) -> list[Any]:
    found = []
    while (response := await call.read()) is not grpc.aio.EOF:
        found.append(response)
    return found
