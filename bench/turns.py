"""Turns through the edge, as a client makes them."""

import math
import uuid
from collections.abc import AsyncIterator, Sequence

import grpc

from parley.auth.v1.auth_service_pb2 import RegisterRequest
from parley.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from parley.chat.v1.chat_service_pb2 import StartTurnRequest, TurnOptions
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.session.v1.session_service_pb2 import CreateConversationRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub

MANY_READERS = {"PARLEY_OPEN_READERS_PER_USER": "2000"}
"""Environment of a mesh that lets one user read as often as a thousand."""
_TURNS_EACH = 20  # as many as a user may have open
Metadata = Sequence[tuple[str, str]]


async def people(opened: grpc.aio.Channel, turns: int) -> Sequence[Metadata]:
    """New users, as the metadata of their calls: enough to have so many turns open."""
    found = []
    for _ in range(math.ceil(turns / _TURNS_EACH)):
        name = uuid.uuid4().hex
        request = RegisterRequest(
            request_id=str(uuid.uuid4()),
            organisation_name="bench",
            email=f"{name}@bench.example",
            password=name,
            display_name="bench",
        )
        response = await AuthServiceStub(opened).Register(request)
        found.append((("authorization", f"Bearer {response.tokens.access_token}"),))
    return found


async def conversation(opened: grpc.aio.Channel, metadata: Metadata) -> str:
    """A new conversation's id."""
    request = CreateConversationRequest(request_id=str(uuid.uuid4()), title="bench")
    response = await SessionServiceStub(opened).CreateConversation(request, metadata=metadata)
    return str(response.conversation.id)


async def stream(
    opened: grpc.aio.Channel,
    metadata: Metadata,
    conversation_id: str,
    text: str,
    max_tokens: int,
    *,
    search: bool = False,
) -> AsyncIterator[str]:
    """The deltas of one answer; raises unless the turn completes."""
    request = StartTurnRequest(
        request_id=str(uuid.uuid4()),
        conversation_id=conversation_id,
        text=text,
        options=TurnOptions(model="echo", max_output_tokens=max_tokens, search=search),
    )
    last = ""
    async for response in ChatServiceStub(opened).StartTurn(request, metadata=metadata):
        last = response.event.WhichOneof("event")
        if last == "text_delta":
            yield response.event.text_delta.text
    if last != "completed":
        raise RuntimeError(f"the turn ended with {last}")
