"""What was said before: the messages of a conversation, and the question that was asked last."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from parley_sdk.parley.session.v1 import (
    ListConversationsRequest,
    ListMessagesRequest,
    Message,
    MessageRole,
    SessionServiceStub,
)
from stack.client.account import signed_in
from stack.client.edge import CALL_TIMEOUT_S, Edge, end


@dataclass(frozen=True)
class Asked:
    """A question, and where it stands."""

    conversation_id: str
    turn_id: str
    text: str


async def last_asked(edge: Edge, conversation_id: str | None) -> Asked:
    """The question asked last, in the conversation that changed last unless one is given."""
    async with signed_in(edge) as (channel, metadata):
        sessions = SessionServiceStub(channel, metadata=metadata)
        if not conversation_id:
            newest = await sessions.list_conversations(ListConversationsRequest(page_size=1), timeout=CALL_TIMEOUT_S)
            conversation_id = newest.conversations[0].id if newest.conversations else ""
        asked = None
        if conversation_id:
            async for message in messages(sessions, conversation_id):
                asked = message if message.role == MessageRole.USER else asked
        if asked is None:
            end("Nothing was asked yet: `parley ask` does.")
        return Asked(conversation_id, asked.turn_id, asked.text)


async def messages(
    sessions: SessionServiceStub, conversation_id: str, turn_id: str | None = None
) -> AsyncIterator[Message]:
    """Those of the branch in which a turn stands, else of the current one; oldest first."""
    request = ListMessagesRequest(conversation_id=conversation_id, page_size=100, branch_turn_id=turn_id)
    while True:
        page = await sessions.list_messages(request, timeout=CALL_TIMEOUT_S)
        for message in page.messages:
            yield message
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
