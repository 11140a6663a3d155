"""The RPCs of parley.session.v1: SessionService for users, TurnRecordService for chat."""

from uuid import UUID

import grpc

from parley.session.v1 import session_service_pb2 as session
from parley.session.v1 import turn_record_service_pb2 as record
from parley.session.v1.session_service_pb2_grpc import SessionServiceServicer
from parley.session.v1.turn_record_service_pb2_grpc import TurnRecordServiceServicer
from services.session import wire
from services.session.conversation import Conversations, Owner, create_conversation
from services.session.message import Messages
from services.session.turn import Turns, open_turn
from services.shared.pages import DEFAULT_SIZE
from services.shared.serving.identity import caller_of
from services.shared.serving.interceptor import CallRules

# A turn may outlast the access token that began it: its answer must be saved all the same, and a replica of chat that
# takes it over must find its history.
RULES = CallRules(
    token_grace_s={f"/parley.session.v1.TurnRecordService/{method}": 3600.0 for method in ("OpenTurn", "CloseTurn")}
)


class SessionService(SessionServiceServicer):
    """The caller's own conversations."""

    def __init__(self, conversations: Conversations, messages: Messages) -> None:
        self._conversations = conversations
        self._messages = messages

    async def CreateConversation(
        self, request: session.CreateConversationRequest, context: grpc.aio.ServicerContext
    ) -> session.CreateConversationResponse:
        request_id = UUID(request.request_id)
        made = await create_conversation(self._conversations, _owner(context), request_id, request.title)
        return session.CreateConversationResponse(conversation=wire.conversation(made))

    async def GetConversation(
        self, request: session.GetConversationRequest, context: grpc.aio.ServicerContext
    ) -> session.GetConversationResponse:
        found = await self._conversations.get(_owner(context), UUID(request.conversation_id))
        return session.GetConversationResponse(conversation=wire.conversation(found))

    async def ListConversations(
        self, request: session.ListConversationsRequest, context: grpc.aio.ServicerContext
    ) -> session.ListConversationsResponse:
        size = request.page_size or DEFAULT_SIZE
        after = wire.after_conversation(request.page_token)
        found = await self._conversations.page(_owner(context), after, size + 1)
        page = found[:size]
        return session.ListConversationsResponse(
            conversations=map(wire.conversation, page),
            next_page_token=wire.conversations_token(page[-1]) if len(found) > size else "",
        )

    async def UpdateConversation(
        self, request: session.UpdateConversationRequest, context: grpc.aio.ServicerContext
    ) -> session.UpdateConversationResponse:
        asked = request.conversation
        renamed = await self._conversations.rename(_owner(context), UUID(asked.id), asked.title)
        return session.UpdateConversationResponse(conversation=wire.conversation(renamed))

    async def DeleteConversation(
        self, request: session.DeleteConversationRequest, context: grpc.aio.ServicerContext
    ) -> session.DeleteConversationResponse:
        await self._conversations.delete(_owner(context), UUID(request.conversation_id))
        return session.DeleteConversationResponse()

    async def ListMessages(
        self, request: session.ListMessagesRequest, context: grpc.aio.ServicerContext
    ) -> session.ListMessagesResponse:
        branch_turn_id, after_position = wire.after_message(request)
        limit = request.page_size or DEFAULT_SIZE
        conversation_id = UUID(request.conversation_id)
        page = await self._messages.page(_owner(context), conversation_id, after_position, limit, branch_turn_id)
        return session.ListMessagesResponse(
            messages=map(wire.message, page.messages), next_page_token=wire.messages_token(request, page)
        )


class TurnRecordService(TurnRecordServiceServicer):
    """The record of turns, for chat alone."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def OpenTurn(
        self, request: record.OpenTurnRequest, context: grpc.aio.ServicerContext
    ) -> record.OpenTurnResponse:
        opened = await open_turn(self._turns, _owner(context), wire.question(request), request.history_limit)
        return record.OpenTurnResponse(
            question=wire.message(opened.question), history=map(wire.message, opened.history)
        )

    async def CloseTurn(
        self, request: record.CloseTurnRequest, context: grpc.aio.ServicerContext
    ) -> record.CloseTurnResponse:
        return wire.closed(await self._turns.close(_owner(context), wire.answer(request)))


def _owner(context: grpc.aio.ServicerContext) -> Owner:
    caller = caller_of(context)
    return Owner(caller.tenant_id, caller.user_id)
