"""A turn while something that chat needs is slow or gone: what goes on, what is refused, what a retry does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from parley.chat.v1.chat_service_pb2 import StartTurnRequest, TurnOptions
from parley.notification.v1.notification_service_pb2 import ListNotificationsRequest
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from tests.chaos.mesh import ChaosMesh
from tests.mesh.following import Follower, following
from tests.mesh.running import RunningMesh, User
from tests.mesh.test_handover import answer
from tests.mesh.test_turns import events_of, messages_of, new_conversation, question
from tests.refusals import details_of, reason_of

SESSION, KNOWLEDGE = ("session-1", "session-2"), ("knowledge-1", "knowledge-2")
LONG = "tokens=120 tokens_per_s=20"


@asynccontextmanager
async def away(faults: ChaosMesh, *links: str, how: str = "cut") -> AsyncIterator[None]:
    """The links of chat to it are cut, frozen, or mute, see links.py."""
    for link in links:
        getattr(faults.links[link], how)()
    try:
        yield
    finally:
        for link in links:
            faults.links[link].mend()


async def refusal(channel: grpc.aio.Channel, user: User, request: StartTurnRequest) -> tuple[Any, str, bool]:
    """Status, reason, and whether it says when to come again."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await events_of(channel, user, request)
    return refused.value.code(), reason_of(refused.value), "RetryInfo" in details_of(refused.value)


def said(events: Any) -> str:
    return "".join(event.text_delta.text for event in events).strip()


async def succeeds(channel: grpc.aio.Channel, user: User, request: StartTurnRequest) -> list[Any]:
    """The same request again, until what was away is found again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await events_of(channel, user, request)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                await asyncio.sleep(0.1)


async def assert_one_turn(pair: RunningMesh, channel: grpc.aio.Channel, user: User, request: StartTurnRequest) -> None:
    """One completed turn of this request, one question, one answer."""
    turns = "SELECT state FROM turns WHERE request_id = $1"
    assert await pair.rows(turns, request.request_id) == [("completed",)]
    asked, answered = await messages_of(channel, user, request.conversation_id)
    assert (asked.text, answered.text.strip()) == (request.text, answer(20))


@pytest.fixture(autouse=True)
async def whole_again(gate: grpc.aio.Channel, one: Any, two: Any, ada: User) -> AsyncIterator[None]:
    """After each test both replicas have found again what was away."""
    yield
    for replica in (one, two):
        await succeeds(replica, ada, question(await new_conversation(gate, ada), "hello"))


@pytest.fixture
async def request_20(gate: grpc.aio.Channel, ada: User) -> StartTurnRequest:
    return question(await new_conversation(gate, ada), "tokens=20 tokens_per_s=50")


@pytest.mark.parametrize("how", ["cut", "freeze"])
async def test_without_knowledge_the_answer_comes_without_sources(
    faults: ChaosMesh, gate: grpc.aio.Channel, ada: User, request_20: StartTurnRequest, how: str
) -> None:
    request_20.options.MergeFrom(TurnOptions(model="echo", search=True))
    async with away(faults, *KNOWLEDGE, how=how):
        events = await events_of(gate, ada, request_20)
    sources = [event.sources for event in events if event.HasField("sources")]
    assert [(source.degraded, len(source.citations)) for source in sources] == [(True, 0)]
    assert said(events) == answer(20)


@pytest.mark.parametrize("how", ["cut", "freeze"])
async def test_without_valkey_the_turn_runs_and_says_that_it_cant_be_resumed(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, one: Any, two: Any, ada: User, how: str
) -> None:
    """Back in the middle: the log gets everything, and the turn is read at the other replica too."""
    request = question(await new_conversation(gate, ada), LONG)
    asker = Follower(one, ada, request)
    async with following(asker) as done:
        async with away(faults, "valkey", how=how):
            await asker.until("20")
        await done
    assert not asker.events[0].started.resumable
    other = Follower(two, ada, request, asker.turn_id)
    async with following(other) as done:
        await done
    assert [event.SerializeToString() for event in other.events] == [
        event.SerializeToString() for event in asker.events
    ]
    assert asker.words.strip() == answer(120)
    assert not asker.breaks


async def test_without_nats_events_wait_and_come(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, ada: User, request_20: StartTurnRequest
) -> None:
    notifications = NotificationServiceStub(gate)

    async def told() -> list[Any]:
        listed = await notifications.ListNotifications(ListNotificationsRequest(), metadata=ada.metadata)
        return [notification.answer_ready.conversation_id for notification in listed.notifications]

    async with away(faults, "nats"):
        events = await events_of(gate, ada, request_20)
        waiting = "SELECT publish_time FROM outbox WHERE aggregate_id = $1"
        assert await pair.rows(waiting, events[0].turn_id) == [(None,)]
    assert said(events) == answer(20)
    async with asyncio.timeout(30):
        while not await told():
            await asyncio.sleep(0.1)
    assert await told() == [request_20.conversation_id]


@pytest.mark.parametrize("how", ["cut", "mute"])
async def test_without_session_nothing_is_begun_and_a_retry_works(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, ada: User, request_20: StartTurnRequest, how: str
) -> None:
    """Mute: the question is saved, and nobody here learns of it; a retry saves no second one."""
    async with away(faults, *SESSION, how=how):
        assert await refusal(gate, ada, request_20) == (grpc.StatusCode.UNAVAILABLE, "CONVERSATION_UNAVAILABLE", True)
        running = "SELECT id FROM turns WHERE request_id = $1 AND state = 'running'"
        assert await pair.rows(running, request_20.request_id) == []
    assert said(await succeeds(gate, ada, request_20)) == answer(20)
    await assert_one_turn(pair, gate, ada, request_20)


async def test_without_the_model_a_retry_works_and_doubles_nothing(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, ada: User, request_20: StartTurnRequest
) -> None:
    async with away(faults, "triton"):
        for _ in range(2):
            refused = await refusal(gate, ada, request_20)
            assert refused == (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE", True)
    assert said(await succeeds(gate, ada, request_20)) == answer(20)
    await assert_one_turn(pair, gate, ada, request_20)


async def test_without_the_record_running_turns_go_on_and_new_ones_are_refused(
    pair: RunningMesh, faults: ChaosMesh, gate: grpc.aio.Channel, one: Any, ada: User, request_20: StartTurnRequest
) -> None:
    request = question(await new_conversation(gate, ada), LONG)
    asker = Follower(one, ada, request)
    async with following(asker) as done:
        await asker.until("10")
        async with away(faults, "postgres"):
            assert await refusal(one, ada, request_20) == (grpc.StatusCode.UNAVAILABLE, "RECORD_UNAVAILABLE", True)
            await asker.until("60")  # longer than its lease
        await done
    assert asker.words.strip() == answer(120)
    assert asker.numbers == list(range(1, len(asker.numbers) + 1))
    assert not asker.breaks
    assert len(await messages_of(gate, ada, request.conversation_id)) == 2
    assert said(await succeeds(one, ada, request_20)) == answer(20)
    await assert_one_turn(pair, gate, ada, request_20)
