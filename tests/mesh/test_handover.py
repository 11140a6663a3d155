"""What a turn's readers see when its replica is stopped, stands still, or is killed: every word once, in order."""

import asyncio
import signal
from typing import Any

import grpc
import httpx
from google.protobuf.duration_pb2 import Duration

from parley.chat.v1.chat_service_pb2 import GetTurnRequest, TurnOptions
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import CancellationCause, TurnState
from parley.session.v1.session_pb2 import MessageState
from tests.chaos.mesh import ChaosMesh
from tests.mesh.following import Follower, cancel, following
from tests.mesh.running import RunningMesh, User
from tests.mesh.test_turns import messages_of, new_conversation, question

SLOTS = 4
"""Of the chat model, models/chat/config.pbtxt."""
MOST_GAP_S = 1.0
"""In the words of a turn that is handed over, on a machine that does other things. Alone it is 0.2 s."""
RUNNING = TurnState.TURN_STATE_RUNNING


def answer(tokens: int) -> str:
    """Of `tokens=N`, undisturbed."""
    return " ".join(str(number) for number in range(1, tokens + 1))


def options(**fields: Any) -> TurnOptions:
    return TurnOptions(model="echo", search=False, **fields)


async def test_a_stopped_replica_hands_its_turns_over(
    pair: RunningMesh, gate: grpc.aio.Channel, one: Any, two: Any, ada: User
) -> None:
    """One replica after the other, so that every turn moves; each is read where it runs and at the other one."""
    asked = [question(await new_conversation(gate, ada), "tokens=3000 tokens_per_s=25") for _ in range(6)]
    askers = [Follower(channel, ada, request) for request, channel in zip(asked, (one, two) * 3, strict=True)]
    async with following(*askers):
        await asyncio.gather(*(reader.until("5") for reader in askers))
        turns = [reader.turn_id for reader in askers]
        others = [
            Follower(at, ada, request, turn) for at, request, turn in zip((two, one) * 3, asked, turns, strict=True)
        ]
        readers = [*askers, *others]
        async with following(*others):
            await asyncio.gather(*(reader.until("5") for reader in others))
            for reader in readers:
                reader.channel = gate  # who comes back comes by the edge
            restarted = await asyncio.to_thread(pair.parley, "restart", "chat")
            assert restarted.returncode == 0, restarted.stdout + restarted.stderr
            for turn in turns:
                assert (await cancel(gate, ada, turn)).state == TurnState.TURN_STATE_CANCELLED
            ends = [await end_of(reader) for reader in readers]
    print(restarted.stdout, f"longest gaps: {sorted(round(reader.longest_gap_s, 2) for reader in readers)}")
    assert {end.cause for end in ends} == {CancellationCause.CANCELLATION_CAUSE_REQUESTED}
    for reader in readers:
        assert answer(3000).startswith(reader.words.strip())
        assert reader.numbers == list(range(1, len(reader.numbers) + 1))
        assert reader.breaks.keys() == {(grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")}
        assert reader.longest_gap_s < MOST_GAP_S
    for asker, other, request in zip(askers, others, asked, strict=True):
        _, answered = await messages_of(gate, ada, request.conversation_id)
        assert asker.words == other.words == answered.text


async def test_a_hundred_copies_at_two_replicas_are_one_turn(
    pair: RunningMesh, gate: grpc.aio.Channel, one: Any, two: Any, ada: User
) -> None:
    request = question(await new_conversation(gate, ada), "tokens=25 tokens_per_s=50", options=options())
    copies = [Follower(channel, ada, request) for channel in 50 * (one, two)]
    async with following(*copies) as followed:
        await followed
    asked, answered = await messages_of(gate, ada, request.conversation_id)
    assert {copy.words for copy in copies} == {answered.text} == {answer(25)}
    assert {tuple(copy.numbers) for copy in copies} == {tuple(range(1, len(copies[0].numbers) + 1))}
    assert {copy.turn_id for copy in copies} == {asked.turn_id} == {answered.turn_id}
    assert {copy.last.completed.message_id for copy in copies} == {answered.id}
    assert not any(copy.breaks for copy in copies)
    charged = "SELECT sum(completion_tokens) FROM turns WHERE request_id = $1"
    assert await pair.rows(charged, request.request_id) == [(25,)]


async def test_a_replica_that_stood_still_finds_its_turn_taken_and_follows(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, one: Any, two: Any, ada: User
) -> None:
    """Longer than its lease, in the middle of a word: it writes none of what it still had to say."""
    request = question(await new_conversation(gate, ada), "tokens=160 tokens_per_s=20", options=options())
    asker = Follower(one, ada, request)
    async with following(asker) as asked:
        await asker.until("10")
        other = Follower(two, ada, request, asker.turn_id)
        async with following(other) as followed:
            await other.until("11")
            faults.signal("chat-1", signal.SIGSTOP)
            try:
                # Two seconds until somebody takes it, and five of words.
                await other.until("120")
            finally:
                faults.signal("chat-1", signal.SIGCONT)
            await followed
        await asked
    print(f"the reader of the other replica waited {other.longest_gap_s:.2f} s")
    for reader in (asker, other):
        assert reader.words.strip() == answer(160)
        assert reader.numbers == list(range(1, len(reader.numbers) + 1))
        assert not reader.breaks
        assert [event.SerializeToString() for event in reader.events] == [
            event.SerializeToString() for event in asker.events
        ]
    _, answered = await messages_of(gate, ada, request.conversation_id)
    assert answered.usage.completion_tokens == 160
    turn = "SELECT runs, completion_tokens FROM turns WHERE id = $1"
    assert await pair.rows(turn, asker.turn_id) == [(2, 160)]
    assert await pair.rows("SELECT event_type FROM outbox WHERE aggregate_id = $1", asker.turn_id) == [
        ("parley.chat.v1.TurnCompleted",)
    ]


async def test_a_reader_at_another_replica_keeps_a_turn_alive(
    faults: ChaosMesh, gate: grpc.aio.Channel, one: Any, two: Any, ada: User
) -> None:
    """Its own replica dies meanwhile too. When the reader leaves, the turn is stopped."""
    patience = options(reader_grace=Duration(seconds=1))
    request = question(await new_conversation(gate, ada), "tokens=3000 tokens_per_s=20", options=patience)
    asker = Follower(one, ada, request)
    other = Follower(two, ada, request)
    async with following(other):
        async with following(asker):
            await asker.until("5")
            other.turn_id = asker.turn_id
            await other.until("5")
        await other.until("100")  # four times the grace
        faults.signal("chat-1", signal.SIGKILL)
        await other.until("160")
        assert not other.breaks
    end = await ended(gate, ada, asker.turn_id)
    assert end.state == TurnState.TURN_STATE_CANCELLED
    again = Follower(two, ada, request, asker.turn_id)
    async with following(again) as done:
        await done
    assert again.last.cancelled.cause == CancellationCause.CANCELLATION_CAUSE_NO_READER
    assert again.words.startswith(other.words)
    await faults.until_ready("chat-1", within_s=60)


async def test_cancelling_at_another_replica_frees_the_models_slot(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, one: Any, two: Any, ada: User
) -> None:
    """The model holds one turn more than it has slots; the next one waits in Triton's queue until one is cancelled."""
    chosen = TurnOptions(model="chat", search=False, max_output_tokens=1500, temperature=0)
    text = "List all the numbers from 1 to 500, one per line."
    requests = [question(await new_conversation(gate, ada), text, options=chosen) for _ in range(SLOTS + 2)]
    speaking = [Follower(one, ada, request) for request in requests[:SLOTS]]
    waiting = [Follower(one, ada, request) for request in requests[SLOTS:]]
    clock = asyncio.get_running_loop().time
    async with following(*speaking):
        async with asyncio.timeout(60):
            while not all(turn.words for turn in speaking):
                await asyncio.sleep(0.02)
        async with following(*waiting):
            await until_queued(pair, 1)
            await get(two, ada, speaking[0].turn_id)  # the connection is there
            began_s = clock()
            cancelling = asyncio.create_task(cancel(two, ada, speaking[0].turn_id))
            await until_queued(pair, 0)
            freed_s = clock() - began_s
            cancelled = await cancelling
            for turn in speaking[1:]:
                await cancel(two, ada, turn.turn_id)
        last = await end_of(speaking[0])
    print(f"the queue moved on after {freed_s * 1000:.0f} ms; the event says {last.freed_after_ms} ms")
    assert cancelled.state == TurnState.TURN_STATE_CANCELLED
    assert last.cause == CancellationCause.CANCELLATION_CAUSE_REQUESTED
    assert 0 < last.freed_after_ms <= 250
    _, answered = await messages_of(gate, ada, requests[0].conversation_id)
    assert answered.state == MessageState.MESSAGE_STATE_INTERRUPTED
    assert answered.text == speaking[0].words
    assert answered.id == last.message_id == cancelled.message_id


async def test_the_deadline_holds_at_whichever_replica_runs_the_turn(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, one: Any, two: Any, ada: User
) -> None:
    request = question(await new_conversation(gate, ada), "tokens=3000 tokens_per_s=20", options=options())
    asker = Follower(one, ada, request)
    other = Follower(two, ada, request)
    async with following(asker):
        await asker.until("5")
        other.turn_id = asker.turn_id
        done = asyncio.create_task(other.follow())
        await other.until("5")
        sooner = "UPDATE turns SET deadline_time = now() + interval '4 s' WHERE id = $1 RETURNING id"
        assert await pair.rows(sooner, asker.turn_id)
        faults.signal("chat-1", signal.SIGKILL)
        await asyncio.wait_for(done, 30)
    assert other.last.cancelled.cause == CancellationCause.CANCELLATION_CAUSE_DEADLINE
    assert other.last.cancelled.freed_after_ms <= 100
    assert answer(3000).startswith(other.words.strip())
    await faults.until_ready("chat-1", within_s=60)


async def get(channel: grpc.aio.Channel, user: User, turn_id: str) -> Any:
    return (await ChatServiceStub(channel).GetTurn(GetTurnRequest(turn_id=turn_id), metadata=user.metadata)).turn


async def ended(channel: grpc.aio.Channel, user: User, turn_id: str) -> Any:
    """The turn, when it is over."""
    async with asyncio.timeout(30):
        while (turn := await get(channel, user, turn_id)).state == RUNNING:
            await asyncio.sleep(0.05)
    return turn


async def end_of(reader: Follower) -> Any:
    async with asyncio.timeout(30):
        while not reader.last.HasField("cancelled"):
            await asyncio.sleep(0.02)
    return reader.last.cancelled


async def until_queued(mesh: RunningMesh, turns: int) -> None:
    """Until Triton itself says that so many wait for the chat model."""
    async with asyncio.timeout(60), httpx.AsyncClient() as client:
        while True:
            text = (await client.get(f"http://{mesh.endpoints['metrics']['triton'][0]}/metrics")).text
            if f'nv_inference_pending_request_count{{model="chat",version="1"}} {turns}' in text:
                return
            await asyncio.sleep(0.005)
