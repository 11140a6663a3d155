"""The services that chat calls: session, which keeps what was said, and knowledge, which finds passages.

Both calls carry the user's token. Their methods may be repeated without harm, so the channels retry them.
"""

from collections.abc import Sequence
from typing import NoReturn
from uuid import UUID

import grpc

from parley.knowledge.v1 import knowledge_service_pb2
from parley.knowledge.v1.document_pb2 import Passage as FoundPassage
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from parley.session.v1 import session_pb2, turn_record_service_pb2
from parley.session.v1.turn_record_service_pb2_grpc import TurnRecordServiceStub
from services.chat import wire
from services.chat.turn import Asker, Follows, Message, Passage, Place, Replaces, Role, SavedAnswer, Turn, Usage
from services.shared.errors import NotFound, Reason, Unavailable
from services.shared.serving.channel import metadata_for
from services.shared.serving.status import refusal_in

IDEMPOTENT_AT_SESSION = (
    ("parley.session.v1.TurnRecordService", "OpenTurn"),
    ("parley.session.v1.TurnRecordService", "CloseTurn"),
)
IDEMPOTENT_AT_KNOWLEDGE = (("parley.knowledge.v1.KnowledgeService", "Search"),)
_RECORD_TIMEOUT_S = 4.0
_QUERY_CHARACTERS = 2000  # what Search takes
_ROLES = {session_pb2.MESSAGE_ROLE_USER: Role.USER, session_pb2.MESSAGE_ROLE_ASSISTANT: Role.ASSISTANT}


class SessionPeer:
    """Implements answer.Conversations."""

    def __init__(self, channel: grpc.aio.Channel, history_messages: int) -> None:
        self._stub = TurnRecordServiceStub(channel)
        self._history_messages = history_messages

    async def open_turn(self, turn: Turn) -> Sequence[Message]:
        request = turn_record_service_pb2.OpenTurnRequest(
            turn_id=str(turn.id),
            conversation_id=str(turn.question.conversation_id),
            text=turn.question.text,
            history_limit=self._history_messages,
            **_place(turn.question.place),
        )
        try:
            limit_s = max(0.0, min(_RECORD_TIMEOUT_S, turn.time_left_s))
            response = await self._stub.OpenTurn(request, **_options(turn.asker, limit_s))
        except grpc.aio.AioRpcError as error:
            message = "The conversation can't be read or saved just now; nothing was started."
            _refuse(error, Reason.CONVERSATION_UNAVAILABLE, message)
        return [Message(_ROLES[message.role], message.text) for message in response.history]

    async def close_turn(
        self, turn: Turn, text: str, *, whole: bool, passages: Sequence[Passage], usage: Usage
    ) -> SavedAnswer:
        states = session_pb2.MessageState
        request = turn_record_service_pb2.CloseTurnRequest(
            turn_id=str(turn.id),
            text=text,
            state=states.MESSAGE_STATE_COMPLETE if whole else states.MESSAGE_STATE_INTERRUPTED,
            citations=wire.citations(passages),
            usage=wire.usage(usage),
        )
        try:
            response = await self._stub.CloseTurn(request, **_options(turn.asker, _RECORD_TIMEOUT_S))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotFound(Reason.CONVERSATION_NOT_FOUND, "The conversation was deleted meanwhile.") from error
            raise Unavailable(Reason.CONVERSATION_UNAVAILABLE, "The answer can't be saved just now.") from error
        answer = response.answer
        return SavedAnswer(
            answer.text,
            whole=response.state == states.MESSAGE_STATE_COMPLETE,
            passages=tuple(map(wire.passage, answer.citations)),
            usage=Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens),
            message_id=UUID(answer.id) if response.HasField("answer") else None,
        )


class KnowledgePeer:
    """Implements answer.Documents."""

    def __init__(self, channel: grpc.aio.Channel, *, passages: int, timeout_s: float) -> None:
        self._stub = KnowledgeServiceStub(channel)
        self._passages = passages
        self._timeout_s = timeout_s

    async def search(self, asker: Asker, text: str) -> Sequence[Passage]:
        request = knowledge_service_pb2.SearchRequest(query=text[:_QUERY_CHARACTERS], limit=self._passages)
        try:
            response = await self._stub.Search(request, **_options(asker, self._timeout_s))
        except grpc.aio.AioRpcError as error:
            _refuse(error, Reason.SEARCH_UNAVAILABLE, "The documents can't be searched just now.")
        return [_passage(found) for found in response.passages]


def _passage(found: FoundPassage) -> Passage:
    return Passage(
        id=found.id,
        document_id=found.document_id,
        title=found.filename,
        page=found.page if found.HasField("page") else None,
        headings=tuple(found.headings),
        text=found.text,
        faq_id=found.faq_id,
    )


def _place(place: Place | None) -> dict[str, str]:
    match place:
        case Follows(turn_id):
            return {"follows_turn_id": str(turn_id)}
        case Replaces(turn_id):
            return {"replaces_turn_id": str(turn_id)}
    return {}


def _options(asker: Asker, timeout_s: float) -> dict[str, object]:
    return {"metadata": metadata_for(asker.token), "timeout": timeout_s}


def _refuse(error: grpc.aio.AioRpcError, reason: Reason, message: str) -> NoReturn:
    """Raise the peer's own refusal, or what the user lost when the peer could not give one."""
    raise refusal_in(error) or Unavailable(reason, message) from error
