"""`parley ask` while the mesh is broken under it: the person reads every word once."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import pytest

from parley.chat.v1.chat_service_pb2 import GetTurnRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import TurnState
from parley.session.v1.session_pb2 import MessageState
from parley.session.v1.session_service_pb2 import CreateConversationRequest, ListMessagesRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from tests.mesh.running import PROGRAMS, RunningMesh

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

TOKENS = 240
QUESTION = f"tokens={TOKENS} tokens_per_s=24"
ANSWER = " ".join(str(number) for number in range(1, TOKENS + 1))
NOTE = "The connection to the mesh broke"


@pytest.fixture
async def administrator(pair: RunningMesh) -> AsyncIterator[tuple[grpc.aio.Channel, Any]]:
    """The user of the command line, by native gRPC."""
    token = pair.parley("token").stdout.strip()
    async with grpc.aio.insecure_channel(pair.http.removeprefix("http://")) as channel:
        yield channel, (("authorization", f"Bearer {token}"),)


async def new_conversation(channel: grpc.aio.Channel, metadata: Any) -> str:
    request = CreateConversationRequest(request_id=str(uuid4()))
    return str((await SessionServiceStub(channel).CreateConversation(request, metadata=metadata)).conversation.id)


async def messages_of(channel: grpc.aio.Channel, metadata: Any, conversation_id: str) -> Any:
    request = ListMessagesRequest(conversation_id=conversation_id)
    return (await SessionServiceStub(channel).ListMessages(request, metadata=metadata)).messages


class Asking:
    """`parley ask` in the background; `words` grow as they are printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.words = ""

    async def until(self, words: str) -> None:
        """Read until the answer has come so far."""
        assert self.process.stdout
        async with asyncio.timeout(60):
            while words not in f"{self.words} ":
                piece = await self.process.stdout.read(4096)
                assert piece, self.words
                self.words += piece.decode()

    async def end(self) -> tuple[int | None, str]:
        """Exit status, and what was said beside the answer."""
        out, err = await asyncio.wait_for(self.process.communicate(), 120)
        self.words += out.decode()
        return self.process.returncode, err.decode()


async def ask(mesh: RunningMesh, conversation_id: str) -> Asking:
    return Asking(
        await asyncio.create_subprocess_exec(
            PROGRAMS / "parley",
            "ask",
            f"--data-dir={mesh.data_dir}",
            f"--conversation={conversation_id}",
            "--model=echo",
            QUESTION,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )


def state_of(mesh: RunningMesh, part: str) -> Any:
    """From the file: `parley status` would take a good part of the turn."""
    return json.loads((mesh.data_dir / "status.json").read_text())["parts"][part]


def kill(mesh: RunningMesh, part: str) -> None:
    os.kill(state_of(mesh, part)["pid"], signal.SIGKILL)


async def kill_and_wait(mesh: RunningMesh, part: str) -> None:
    restarts = state_of(mesh, part)["restarts"]
    kill(mesh, part)
    async with asyncio.timeout(30):
        while (found := state_of(mesh, part))["restarts"] == restarts or found["state"] != "ready":
            await asyncio.sleep(0.1)


async def test_no_word_is_lost_or_repeated_when_both_chats_die_one_after_the_other(
    pair: RunningMesh, administrator: Any
) -> None:
    """Whichever ran the turn, and whichever carried the stream, it was killed."""
    conversation_id = await new_conversation(*administrator)
    asking = await ask(pair, conversation_id)
    await asking.until(" 10 ")
    await kill_and_wait(pair, "chat-1")
    await kill_and_wait(pair, "chat-2")
    status, said = await asking.end()
    assert asking.words.splitlines()[0] == ANSWER, said
    assert status == 0, said
    assert said.count(NOTE) == 1
    asked, answered = await messages_of(*administrator, conversation_id)
    assert (asked.text, answered.text) == (QUESTION, ANSWER)
    assert answered.state == MessageState.MESSAGE_STATE_COMPLETE
    assert answered.usage.completion_tokens == TOKENS


async def test_no_word_is_lost_when_the_edge_dies(pair: RunningMesh, administrator: Any) -> None:
    conversation_id = await new_conversation(*administrator)
    asking = await ask(pair, conversation_id)
    await asking.until(" 10 ")
    await kill_and_wait(pair, "envoy")
    status, said = await asking.end()
    assert asking.words.splitlines()[0] == ANSWER, said
    assert (status, said.count(NOTE)) == (0, 1)


async def test_words_lost_with_the_log_are_said_to_start_again(pair: RunningMesh, administrator: Any) -> None:
    """Log and owner gone at once: what comes after the line is the whole answer."""
    conversation_id = await new_conversation(*administrator)
    asking = await ask(pair, conversation_id)
    await asking.until(" 10 ")
    for part in ("chat-1", "chat-2", "valkey"):
        kill(pair, part)
    for path in (pair.data_dir / "valkey").rglob("*"):
        if path.suffix in (".aof", ".rdb", ".manifest"):
            path.unlink(missing_ok=True)
    status, said = await asking.end()
    assert status == 0, said
    whole = re.split(r"The answer starts again:\n\n", asking.words)[-1]
    assert whole.splitlines()[0] == ANSWER


async def test_ctrl_c_stops_the_turn_over_a_connection_that_broke_too(pair: RunningMesh, administrator: Any) -> None:
    channel, metadata = administrator
    conversation_id = await new_conversation(channel, metadata)
    asking = await ask(pair, conversation_id)
    await asking.until(" 10 ")
    await kill_and_wait(pair, "envoy")
    await asking.until(f" {len(asking.words.split()) + 20} ")
    asking.process.send_signal(signal.SIGINT)
    status, said = await asking.end()
    assert (status, said.splitlines()[1:]) == (130, ["Stopped; the words so far are kept."])
    asked, answered = await messages_of(channel, metadata, conversation_id)
    assert answered.state == MessageState.MESSAGE_STATE_INTERRUPTED
    assert ANSWER.startswith(answered.text)
    assert len(answered.text) < len(ANSWER)
    turn = (await ChatServiceStub(channel).GetTurn(GetTurnRequest(turn_id=asked.turn_id), metadata=metadata)).turn
    assert turn.state == TurnState.TURN_STATE_CANCELLED
