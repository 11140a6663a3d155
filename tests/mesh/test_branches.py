"""Answered again, edited, and gone on with: the branches of a conversation through the edge."""

from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest

from parley.session.v1.session_pb2 import Message
from parley.session.v1.session_service_pb2 import ListMessagesRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from tests.mesh.test_turns import events_of, new_conversation, question
from tests.refusals import reason_of


async def turn(edge: grpc.aio.Channel, user: Any, conversation_id: str, text: str, **place: str) -> str:
    """Ask and read to the end; the turn's id."""
    events = await events_of(edge, user, question(conversation_id, text, **place))
    assert events[-1].WhichOneof("event") == "completed"
    return events[-1].turn_id


async def branch(edge: grpc.aio.Channel, user: Any, conversation_id: str, **which: str) -> list[Message]:
    request = ListMessagesRequest(conversation_id=conversation_id, **which)
    return list((await SessionServiceStub(edge).ListMessages(request, metadata=user.metadata)).messages)


def turns_in(messages: list[Message]) -> list[str]:
    """Each turn once; every turn has its question and its answer there."""
    turns = [message.turn_id for message in messages[::2]]
    assert turns == [message.turn_id for message in messages[1::2]]
    return turns


async def test_regenerating_and_editing_overwrite_nothing(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    first = await turn(edge, user, conversation_id, "the heron")
    second = await turn(edge, user, conversation_id, "the stork")
    before = await branch(edge, user, conversation_id)
    again = await turn(edge, user, conversation_id, "the stork", replaces_turn_id=second)
    edited = await turn(edge, user, conversation_id, "the crane", replaces_turn_id=again)

    current = await branch(edge, user, conversation_id)
    assert turns_in(current) == [first, edited]
    assert (current[2].text, current[3].text.strip()) == ("the crane", "the crane")  # echo says the question again
    for message in current[2:]:
        assert message.parent_turn_id == first
        assert list(message.sibling_turn_ids) == [second, again, edited]

    old = await branch(edge, user, conversation_id, branch_turn_id=second)
    assert turns_in(old) == [first, second]
    assert [(message.id, message.text) for message in old] == [(message.id, message.text) for message in before]
    assert turns_in(await branch(edge, user, conversation_id, branch_turn_id=again)) == [first, again]


async def test_an_older_branch_is_gone_on_with(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    first = await turn(edge, user, conversation_id, "one")
    other = await turn(edge, user, conversation_id, "another", replaces_turn_id=first)
    second = await turn(edge, user, conversation_id, "two", follows_turn_id=first)
    third = await turn(edge, user, conversation_id, "three")
    assert turns_in(await branch(edge, user, conversation_id)) == [first, second, third]
    assert turns_in(await branch(edge, user, conversation_id, branch_turn_id=first)) == [first, second, third]
    assert turns_in(await branch(edge, user, conversation_id, branch_turn_id=other)) == [other]


async def test_one_request_id_for_two_places_is_refused(edge: grpc.aio.Channel, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    first = await turn(edge, user, conversation_id, "one")
    request_id = str(uuid4())
    again = await turn(edge, user, conversation_id, "one", replaces_turn_id=first, request_id=request_id)
    assert await turn(edge, user, conversation_id, "one", replaces_turn_id=first, request_id=request_id) == again
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await turn(edge, user, conversation_id, "one", follows_turn_id=first, request_id=request_id)
    assert reason_of(refused.value) == "REQUEST_ID_REUSED"
    assert turns_in(await branch(edge, user, conversation_id)) == [again]


@pytest.mark.parametrize("place", ["follows_turn_id", "replaces_turn_id"])
async def test_a_turn_of_another_conversation_or_user_is_not_found(
    edge: grpc.aio.Channel, user: Any, stranger: Any, place: str
) -> None:
    conversation_id = await new_conversation(edge, user)
    elsewhere = await turn(edge, user, await new_conversation(edge, user), "elsewhere")
    theirs = await turn(edge, stranger, await new_conversation(edge, stranger), "theirs")
    for turn_id in (elsewhere, theirs, str(uuid4())):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await turn(edge, user, conversation_id, "mine", **{place: turn_id})
        assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
    assert await branch(edge, user, conversation_id) == []


async def test_branches_are_read_over_rest_too(edge: grpc.aio.Channel, rest: httpx.AsyncClient, user: Any) -> None:
    conversation_id = await new_conversation(edge, user)
    first = await turn(edge, user, conversation_id, "one")
    again = await turn(edge, user, conversation_id, "one", replaces_turn_id=first)
    path = f"/v1/conversations/{conversation_id}/messages"
    response = await rest.get(path, params={"branchTurnId": first}, headers=user.headers)
    assert response.status_code == 200, response.text
    messages = response.json()["messages"]
    assert [message["turnId"] for message in messages] == [first, first]
    assert {tuple(message["siblingTurnIds"]) for message in messages} == {(first, again)}
