"""Turns through the edge, as a client makes them."""

import uuid
from collections.abc import AsyncIterator

import grpc

from bench.mesh import RunningMesh
from parley.chat.v1.chat_service_pb2 import StartTurnRequest, TurnOptions
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.session.v1.session_service_pb2 import CreateConversationRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub

MANY_TURNS = {"PARLEY_OPEN_TURNS_PER_USER": "1000", "PARLEY_OPEN_READERS_PER_USER": "2000"}
"""Environment of a mesh whose one user is measured as if it were many."""


async def conversation(mesh: RunningMesh, opened: grpc.aio.Channel) -> str:
    """A new conversation's id."""
    request = CreateConversationRequest(request_id=str(uuid.uuid4()), title="bench")
    response = await SessionServiceStub(opened).CreateConversation(request, metadata=mesh.metadata)
    return str(response.conversation.id)


async def stream(
    mesh: RunningMesh, opened: grpc.aio.Channel, conversation_id: str, text: str, max_tokens: int
) -> AsyncIterator[str]:
    """The deltas of one answer; raises unless the turn completes."""
    request = StartTurnRequest(
        request_id=str(uuid.uuid4()),
        conversation_id=conversation_id,
        text=text,
        options=TurnOptions(model="echo", max_output_tokens=max_tokens, search=False),
    )
    last = ""
    async for response in ChatServiceStub(opened).StartTurn(request, metadata=mesh.metadata):
        last = response.event.WhichOneof("event")
        if last == "text_delta":
            yield response.event.text_delta.text
    if last != "completed":
        raise RuntimeError(f"the turn ended with {last}")
