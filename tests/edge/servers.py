"""Servers behind the edge under test: each answers what it was asked, so that a test sees what arrived."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import grpc

from parley.auth.v1 import (
    auth_pb2,
    auth_service_pb2,
    auth_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from parley.chat.v1 import chat_service_pb2, chat_service_pb2_grpc, turn_pb2
from parley.knowledge.v1 import (
    crawl_service_pb2_grpc,
    faq_service_pb2,
    faq_service_pb2_grpc,
    knowledge_service_pb2,
    knowledge_service_pb2_grpc,
)
from parley.notification.v1 import notification_pb2, notification_service_pb2, notification_service_pb2_grpc
from parley.session.v1 import (
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    turn_record_service_pb2_grpc,
)
from services.shared.errors import NotFound, Reason, Unavailable

UNAVAILABLE_PAGE_SIZE = 99
FLOOD = 10**9
"""WatchNotifications after it never ends, and is as fast as it is read."""
LARGE = notification_pb2.Notification(id="x" * 4000)
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
OPEN_METHODS = frozenset(f"/parley.auth.v1.AuthService/{name}" for name in ("Login", "GetJwks"))


@dataclass
class Seen:
    """What reached the servers."""

    metadata: dict[str, str | bytes] = field(default_factory=dict)
    """Of the last call."""
    time_left_s: float = 0
    """Which the last call had when it arrived."""
    calls: int = 0
    flooded_bytes: int = 0
    next_word: asyncio.Event = field(default_factory=asyncio.Event)
    """StartTurn sends a word each time it is set."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, context: grpc.aio.ServicerContext) -> None:
        self.calls += 1
        self.metadata = dict(context.invocation_metadata() or ())
        self.time_left_s = context.time_remaining() or 0


class Auth(auth_service_pb2_grpc.AuthServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def Login(self, request, context):
        self._seen.note(context)
        return auth_service_pb2.LoginResponse(user=auth_pb2.User(email=request.email))

    async def GetJwks(self, request, context):
        return auth_service_pb2.GetJwksResponse(keys=[auth_pb2.Jwk(kid="test")])


class Users(user_service_pb2_grpc.UserServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def GetMe(self, request, context):
        self._seen.note(context)
        return user_service_pb2.GetMeResponse(user=auth_pb2.User(id=str(context.caller.user_id)))


class Sessions(session_service_pb2_grpc.SessionServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def GetConversation(self, request, context):
        self._seen.note(context)
        if request.conversation_id == UNKNOWN_ID:
            raise NotFound(Reason.CONVERSATION_NOT_FOUND, "There is no such conversation: list yours.")
        conversation = session_pb2.Conversation(id=request.conversation_id)
        return session_service_pb2.GetConversationResponse(conversation=conversation)

    async def ListConversations(self, request, context):
        self._seen.note(context)
        if request.page_size == UNAVAILABLE_PAGE_SIZE:
            raise Unavailable(Reason.RECORD_UNAVAILABLE, "The record can't be reached.")
        return session_service_pb2.ListConversationsResponse(next_page_token=f"size {request.page_size}")

    async def CreateConversation(self, request, context):
        self._seen.note(context)
        conversation = session_pb2.Conversation(title=request.title)
        return session_service_pb2.CreateConversationResponse(conversation=conversation)

    async def UpdateConversation(self, request, context):
        self._seen.note(context)
        return session_service_pb2.UpdateConversationResponse(conversation=request.conversation)


class TurnRecords(turn_record_service_pb2_grpc.TurnRecordServiceServicer):
    """Answers UNIMPLEMENTED to chat; the edge must not get that far."""


class Chat(chat_service_pb2_grpc.ChatServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def StartTurn(self, request, context) -> AsyncIterator[chat_service_pb2.StartTurnResponse]:
        self._seen.note(context)
        if request.text == "refuse":
            raise Unavailable(Reason.MODEL_UNAVAILABLE, "The model can't be reached.")
        try:
            for sequence, word in enumerate(request.text.split(), start=1):
                await self._seen.next_word.wait()
                self._seen.next_word.clear()
                if word == "fail":
                    raise Unavailable(Reason.MODEL_UNAVAILABLE, "The model went away.")
                delta = turn_pb2.TextDelta(text=word)
                event = turn_pb2.TurnEvent(turn_id=request.request_id, sequence=sequence, text_delta=delta)
                yield chat_service_pb2.StartTurnResponse(event=event)
        except asyncio.CancelledError:
            self._seen.cancelled.set()
            raise


class Knowledge(knowledge_service_pb2_grpc.KnowledgeServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def AppendUpload(self, request, context):
        self._seen.note(context)
        return knowledge_service_pb2.AppendUploadResponse(received_bytes=request.offset_bytes + len(request.chunk))

    async def UploadDocument(self, request_iterator, context):
        self._seen.note(context)
        response = knowledge_service_pb2.UploadDocumentResponse()
        async for request in request_iterator:
            response.document.filename += request.file.filename
            response.document.size_bytes += len(request.chunk)
        return response

    async def Search(self, request, context):
        self._seen.note(context)
        try:
            await asyncio.sleep(3600)
        finally:
            self._seen.cancelled.set()


class Faqs(faq_service_pb2_grpc.FaqServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def UpdateFaq(self, request, context):
        self._seen.note(context)
        return faq_service_pb2.UpdateFaqResponse(faq=request.faq)


class Notifications(notification_service_pb2_grpc.NotificationServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def ListNotifications(self, request, context):
        self._seen.note(context)
        return notification_service_pb2.ListNotificationsResponse()

    async def WatchNotifications(self, request, context):
        self._seen.note(context)
        while request.after_sequence == FLOOD:
            yield notification_service_pb2.WatchNotificationsResponse(notification=LARGE)
            self._seen.flooded_bytes += LARGE.ByteSize()
        notification = notification_pb2.Notification(sequence=request.after_sequence + 1)
        yield notification_service_pb2.WatchNotificationsResponse(notification=notification)


Register = Callable[[grpc.aio.Server], None]
HANDLERS: Mapping[str, Mapping[str, Callable[[Seen], Register]]] = {
    "auth": {
        "parley.auth.v1.AuthService": lambda seen: partial(
            auth_service_pb2_grpc.add_AuthServiceServicer_to_server, Auth(seen)
        ),
        "parley.auth.v1.UserService": lambda seen: partial(
            user_service_pb2_grpc.add_UserServiceServicer_to_server, Users(seen)
        ),
    },
    "session": {
        "parley.session.v1.SessionService": lambda seen: partial(
            session_service_pb2_grpc.add_SessionServiceServicer_to_server, Sessions(seen)
        ),
        "parley.session.v1.TurnRecordService": lambda seen: partial(
            turn_record_service_pb2_grpc.add_TurnRecordServiceServicer_to_server, TurnRecords()
        ),
    },
    "chat": {
        "parley.chat.v1.ChatService": lambda seen: partial(
            chat_service_pb2_grpc.add_ChatServiceServicer_to_server, Chat(seen)
        ),
    },
    "knowledge": {
        "parley.knowledge.v1.KnowledgeService": lambda seen: partial(
            knowledge_service_pb2_grpc.add_KnowledgeServiceServicer_to_server, Knowledge(seen)
        ),
        "parley.knowledge.v1.FaqService": lambda seen: partial(
            faq_service_pb2_grpc.add_FaqServiceServicer_to_server, Faqs(seen)
        ),
        "parley.knowledge.v1.CrawlService": lambda seen: partial(
            crawl_service_pb2_grpc.add_CrawlServiceServicer_to_server, crawl_service_pb2_grpc.CrawlServiceServicer()
        ),
    },
    "notification": {
        "parley.notification.v1.NotificationService": lambda seen: partial(
            notification_service_pb2_grpc.add_NotificationServiceServicer_to_server, Notifications(seen)
        ),
    },
}
