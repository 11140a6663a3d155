"""Asks the mesh, through the edge, what it holds once everything is calm again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from parley.chat.v1.chat_service_pb2 import GetTurnRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import Turn, TurnState
from parley.session.v1.session_pb2 import Message
from parley.session.v1.session_service_pb2 import ListMessagesRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from tests.chaos.people import insist
from tests.chaos.seen import Record, Story

_GONE = (grpc.StatusCode.NOT_FOUND,)


async def read_record(
    stories: Sequence[Story],
    chat: ChatServiceStub,
    sessions: SessionServiceStub,
    metadata: Callable[[], Awaitable[Any]],
    ended_within_s: float,
    record: Record,
) -> None:
    """One user's turns and conversations, added to `record`; waits for running turns, but not longer than that."""
    ends_s = time.monotonic() + ended_within_s
    for turn_id in set().union(*(story.turn_ids for story in stories)):
        turn = await _turn(chat, metadata, turn_id)
        while turn and turn.state == TurnState.TURN_STATE_RUNNING and time.monotonic() < ends_s:
            await asyncio.sleep(0.2)
            turn = await _turn(chat, metadata, turn_id)
        if turn:
            record.turns[turn_id] = turn
    for conversation_id in {story.conversation_id for story in stories}:
        messages = await _messages(sessions, metadata, conversation_id)
        if messages is not None:
            record.messages[conversation_id] = messages


async def _turn(chat: ChatServiceStub, metadata: Callable[[], Awaitable[Any]], turn_id: str) -> Turn | None:
    async def get() -> Any:
        return await chat.GetTurn(GetTurnRequest(turn_id=turn_id), metadata=await metadata(), timeout=5)

    try:
        return (await insist(get)).turn
    except grpc.aio.AioRpcError as error:
        if error.code() in _GONE:
            return None
        raise


async def _messages(
    sessions: SessionServiceStub, metadata: Callable[[], Awaitable[Any]], conversation_id: str
) -> list[Message] | None:
    """Those of all branches: of the current one, then of each turn that is told to stand beside one of them."""
    found: list[Message] = []
    request = ListMessagesRequest(conversation_id=conversation_id, page_size=100)
    if not await _read_branch(sessions, metadata, request, found):
        return None
    read = {message.turn_id for message in found}
    while beside := {sibling for message in found for sibling in message.sibling_turn_ids} - read:
        request = ListMessagesRequest(conversation_id=conversation_id, page_size=100, branch_turn_id=min(beside))
        branch: list[Message] = []
        await _read_branch(sessions, metadata, request, branch)
        found += [message for message in branch if message.turn_id not in read]
        read |= {min(beside), *(message.turn_id for message in branch)}
    return found


async def _read_branch(
    sessions: SessionServiceStub,
    metadata: Callable[[], Awaitable[Any]],
    request: ListMessagesRequest,
    found: list[Message],
) -> bool:
    """False when it is not there."""

    async def get() -> Any:
        return await sessions.ListMessages(request, metadata=await metadata(), timeout=5)

    try:
        while True:
            page = await insist(get)
            found += page.messages
            if not page.next_page_token:
                return True
            request.page_token = page.next_page_token
    except grpc.aio.AioRpcError as error:
        if error.code() in _GONE:
            return False
        raise
