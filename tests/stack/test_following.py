"""`parley ask` on an edge that breaks off its streams: what the person reads, and what Ctrl-C does."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from parley.chat.v1.chat_service_pb2 import GetTurnRequest
from parley.chat.v1.turn_pb2 import TurnState
from parley_sdk.parley.chat.v1 import StartTurnRequest
from stack import programs
from stack.client.edge import find_edge
from stack.client.following import Following
from tests.chaos.fake_edge import FakeEdge, listening

ANSWER = " ".join(str(number) for number in range(1, 41))
QUESTION = "tokens=40 tokens_per_s=0"
NOTE = "The connection to the mesh broke"
AGAIN = "The answer starts again:"


def sign_in(address: str, folder: Path) -> None:
    """At that edge, for the commands that use this folder."""
    (folder / "endpoints.json").write_text(json.dumps({"edge": {"http": f"http://{address}"}}))
    session = {"access_token": "a.b.c", "access_expires_at_s": time.time() + 3600, "refresh_token": "-"}
    (folder / "client-session.json").write_text(json.dumps(session))


async def asking(address: str, folder: Path) -> asyncio.subprocess.Process:
    """`parley ask` as somebody who is signed in at that edge."""
    sign_in(address, folder)
    return await asyncio.create_subprocess_exec(
        programs.script("parley"),
        "ask",
        f"--data-dir={folder}",
        "--model=echo",
        QUESTION,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def asked(edge: FakeEdge, folder: Path) -> tuple[int | None, str, str]:
    """Exit status, what was printed, what was said beside it."""
    async with listening(edge) as address:
        process = await asking(address, folder)
        out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def test_no_word_is_lost_or_repeated_and_the_break_is_told_once(tmp_path: Path) -> None:
    status, out, err = await asked(FakeEdge(breaks=1.0, break_after=8, rewinds=0.0), tmp_path)
    assert (status, out.splitlines()[0]) == (0, ANSWER), err
    assert err.count(NOTE) == 1


async def test_an_unbroken_stream_says_nothing(tmp_path: Path) -> None:
    status, out, err = await asked(FakeEdge(breaks=0.0, rewinds=0.0), tmp_path)
    assert (status, out.splitlines()[0], err) == (0, ANSWER, "")


async def test_a_rewound_answer_is_said_to_start_again(tmp_path: Path) -> None:
    status, out, _ = await asked(FakeEdge(breaks=0.0, rewinds=1.0), tmp_path)
    before, _, after = out.partition(AGAIN)
    assert status == 0
    assert ANSWER.startswith(before.split("\n")[0])
    assert after.split("\n")[2] == ANSWER


async def test_ctrl_c_stops_the_turn(tmp_path: Path) -> None:
    edge = FakeEdge("waits for the stop", breaks=0.0, rewinds=0.0)
    async with listening(edge) as address:
        process = await asking(address, tmp_path)
        assert process.stdout
        await asyncio.wait_for(process.stdout.readuntil(b"7"), 30)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 30)
        assert edge.states == [TurnState.TURN_STATE_CANCELLED]
    assert (process.returncode, err.decode()) == (130, "Stopped; the words so far are kept.\n")


async def test_a_turn_that_others_stopped_says_why(tmp_path: Path) -> None:
    status, out, err = await asked(FakeEdge("stopped for no reason", breaks=0.0, rewinds=0.0), tmp_path)
    assert (status, out.splitlines()[0]) == (1, "1 2 3 4 5 6 7")
    assert "was stopped, for nobody read it; the words so far are kept" in err


class SilentTurn(FakeEdge):
    """Its turn says seven words, and is stopped when it was looked at twice."""

    def __init__(self) -> None:
        super().__init__("waits for the stop", breaks=0.0, rewinds=0.0)
        self.looks = 0

    async def GetTurn(self, request: GetTurnRequest, context: Any) -> Any:
        self.looks += 1
        if self.looks == 2:
            await self.CancelTurn(request, context)
        return await super().GetTurn(request, context)


async def test_a_turn_that_is_silent_is_no_broken_connection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = SilentTurn()
    async with listening(silent) as address:
        sign_in(address, tmp_path)
        conversation = (await silent.CreateConversation(None, None)).conversation
        request = StartTurnRequest(request_id=str(uuid4()), conversation_id=conversation.id, text=QUESTION)
        following = Following(find_edge(tmp_path, None), request, silence_s=1.0)
        events = [event async for event in following.events()]
    assert "".join(event.text_delta.text for event in events if event.text_delta) == "1 2 3 4 5 6 7"
    assert events[-1].cancelled is not None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flaw", ["resume is refused"])
async def test_a_turn_that_is_gone_is_a_refusal_not_a_break(flaw: str, tmp_path: Path) -> None:
    status, _, err = await asked(FakeEdge(flaw, breaks=1.0, break_after=8, rewinds=0.0), tmp_path)
    assert status == 1
    assert "no such turn" in err
