"""A turn through the edge, from question to saved answer, over native gRPC."""

import asyncio
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from parley.chat.v1.chat_service_pb2 import StartTurnRequest, TurnOptions
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import TurnEvent
from parley.session.v1.session_pb2 import MessageRole, MessageState
from parley.session.v1.session_service_pb2 import CreateConversationRequest, ListMessagesRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from tests.refusals import reason_of


async def new_conversation(edge: grpc.aio.Channel, user: Any) -> str:
    request = CreateConversationRequest(request_id=str(uuid4()))
    response = await SessionServiceStub(edge).CreateConversation(request, metadata=user.metadata)
    return str(response.conversation.id)


def question(conversation_id: str, text: str, **fields: Any) -> StartTurnRequest:
    options = TurnOptions(model="echo", search=False)
    return StartTurnRequest(
        **{
            "request_id": str(uuid4()),
            "conversation_id": conversation_id,
            "text": text,
            "options": options,
            **fields,
        }
    )


async def events_of(edge: grpc.aio.Channel, user: Any, request: StartTurnRequest) -> list[TurnEvent]:
    call = ChatServiceStub(edge).StartTurn(request, metadata=user.metadata)
    return [response.event async for response in call]


async def messages_of(edge: grpc.aio.Channel, user: Any, conversation_id: str) -> Any:
    request = ListMessagesRequest(conversation_id=conversation_id)
    return (await SessionServiceStub(edge).ListMessages(request, metadata=user.metadata)).messages


async def test_a_turn_is_numbered_events_and_a_saved_answer(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    options = TurnOptions(model="echo", search=True)
    request = question(conversation_id, "the heron stands in the water", options=options)
    events = await events_of(edge, user, request)
    kinds = [event.WhichOneof("event") for event in events]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds[:2] == ["started", "sources"]
    assert kinds[-2:] == ["usage", "completed"]
    assert set(kinds[2:-2]) == {"text_delta"}
    answer = "".join(event.text_delta.text for event in events)
    asked, answered = await messages_of(edge, user, conversation_id)
    assert (asked.role, asked.text) == (MessageRole.MESSAGE_ROLE_USER, "the heron stands in the water")
    assert (answered.role, answered.text) == (MessageRole.MESSAGE_ROLE_ASSISTANT, answer)
    assert answered.state == MessageState.MESSAGE_STATE_COMPLETE
    assert answered.id == events[-1].completed.message_id
    assert answered.usage.completion_tokens == events[-2].usage.completion_tokens > 0


async def test_a_repeat_joins_the_turn_and_saves_nothing_twice(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    request = question(conversation_id, "tokens=20 tokens_per_s=100")
    first, second = await asyncio.gather(events_of(edge, user, request), events_of(edge, user, request))
    assert first == second
    assert await events_of(edge, user, request) == first
    assert len(await messages_of(edge, user, conversation_id)) == 2


async def test_one_request_id_for_two_questions_is_refused(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    request = question(conversation_id, "one")
    await events_of(edge, user, request)
    other = question(conversation_id, "two", request_id=request.request_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await events_of(edge, user, other)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(refused.value) == "REQUEST_ID_REUSED"


async def test_without_a_grace_cancelling_the_call_stops_the_model_and_keeps_the_words(
    edge: grpc.aio.Channel, user: Any
) -> None:
    conversation_id = await new_conversation(edge, user)
    at_once = TurnOptions(model="echo", max_output_tokens=3000, reader_grace=Duration())
    request = question(conversation_id, "tokens=3000 tokens_per_s=50", options=at_once)
    call = ChatServiceStub(edge).StartTurn(request, metadata=user.metadata)
    words = ""
    async for response in call:
        words += response.event.text_delta.text
        if len(words.split()) >= 5:
            break
    call.cancel()
    async with asyncio.timeout(5):
        while len(messages := await messages_of(edge, user, conversation_id)) < 2:
            await asyncio.sleep(0.05)
    assert messages[1].state == MessageState.MESSAGE_STATE_INTERRUPTED
    assert messages[1].text.startswith(words.strip())
    assert len(messages[1].text.split()) < 100
    # The turn has an end that a repeat of the request sees.
    events = await events_of(edge, user, request)
    assert events[-1].WhichOneof("event") == "cancelled"


async def test_words_arrive_one_by_one(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    request = question(conversation_id, "tokens=20 tokens_per_s=20")
    arrivals = []
    async for response in ChatServiceStub(edge).StartTurn(request, metadata=user.metadata):
        if response.event.WhichOneof("event") == "text_delta":
            arrivals.append(asyncio.get_running_loop().time())
    assert len(arrivals) >= 10
    assert arrivals[-1] - arrivals[0] > 0.5  # 20 words at 20 a second, not all at the end


async def test_an_unknown_model_is_refused_with_those_that_exist(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    request = question(conversation_id, "hello", options=TurnOptions(model="gpt"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await events_of(edge, user, request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == "MODEL_UNKNOWN"
    assert "echo" in refused.value.details()
    assert not await messages_of(edge, user, conversation_id)
