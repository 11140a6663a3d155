"""What a turn's readers see when its replica is stopped, stands still, or is killed: every word once, in order."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from parley.chat.v1.chat_service_pb2 import CancelTurnRequest, GetTurnRequest, TurnOptions
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import CancellationCause, TurnState
from tests.chaos.mesh import ChaosMesh
from tests.mesh.following import Follower, following
from tests.mesh.running import RunningMesh, User, register
from tests.mesh.test_turns import messages_of, new_conversation, question

READY_S = 60.0


@pytest.fixture
async def gate(pair: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    """The edge of that mesh."""
    async with grpc.aio.insecure_channel(pair.http.removeprefix("http://")) as channel:
        yield channel


@pytest.fixture
async def ada(gate: grpc.aio.Channel) -> User:
    return await register(gate)


@pytest.fixture
async def one(pair: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    async with pair.replica("chat-1") as channel:
        yield channel


@pytest.fixture
async def two(pair: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    async with pair.replica("chat-2") as channel:
        yield channel


def answer(tokens: int) -> str:
    """Of `tokens=N`, undisturbed."""
    return " ".join(str(number) for number in range(1, tokens + 1))


def options(**fields: Any) -> TurnOptions:
    return TurnOptions(model="echo", search=False, **fields)


async def test_a_stopped_replica_hands_its_turns_over(pair: RunningMesh, gate: grpc.aio.Channel, ada: User) -> None:
    """One replica after the other: every turn, and every stream, has to move."""
    asked = [question(await new_conversation(gate, ada), "tokens=500 tokens_per_s=25") for _ in range(8)]
    turns = [Follower(gate, ada, request) for request in asked]
    async with following(*turns) as done:
        await asyncio.gather(*(turn.until("5") for turn in turns))
        restarted = await asyncio.to_thread(pair.parley, "restart", "chat")
        assert restarted.returncode == 0, restarted.stdout + restarted.stderr
        assert not done.done()
        await done
    print(restarted.stdout, f"longest gaps: {sorted(round(turn.longest_gap_s, 2) for turn in turns)}")
    for turn, request in zip(turns, asked, strict=True):
        assert turn.words.strip() == answer(500)
        assert turn.numbers == list(range(1, len(turn.numbers) + 1))
        assert turn.breaks.keys() == {(grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")}
        assert len(await messages_of(gate, ada, request.conversation_id)) == 2
