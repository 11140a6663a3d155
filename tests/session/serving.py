"""What the client of a served session service sends."""

from uuid import uuid4

from google.protobuf.field_mask_pb2 import FieldMask

from parley.session.v1 import session_pb2 as proto
from parley.session.v1 import session_service_pb2 as session
from parley.session.v1 import turn_record_service_pb2 as record
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from parley.session.v1.turn_record_service_pb2_grpc import TurnRecordServiceStub
from tests.session.conftest import Metadata

NOBODYS = "5e55a000-0000-4000-8000-00000000d0d0"


async def make(sessions: SessionServiceStub, me: Metadata, title: str = "") -> proto.Conversation:
    request = session.CreateConversationRequest(request_id=str(uuid4()), title=title)
    return (await sessions.CreateConversation(request, metadata=me)).conversation


async def exchange(
    turns: TurnRecordServiceStub, me: Metadata, conversation_id: str, question: str, **place: str
) -> str:
    turn_id = str(uuid4())
    ask = record.OpenTurnRequest(turn_id=turn_id, conversation_id=conversation_id, text=question, **place)
    await turns.OpenTurn(ask, metadata=me)
    end = record.CloseTurnRequest(turn_id=turn_id, text=f"re: {question}", state=proto.MESSAGE_STATE_COMPLETE)
    await turns.CloseTurn(end, metadata=me)
    return turn_id


async def listed(sessions: SessionServiceStub, me: Metadata, conversation_id: str, **which: str) -> list[proto.Message]:
    request = session.ListMessagesRequest(conversation_id=conversation_id, **which)
    return list((await sessions.ListMessages(request, metadata=me)).messages)


def renaming(conversation_id: str, title: str, *paths: str) -> session.UpdateConversationRequest:
    conversation = proto.Conversation(id=conversation_id, title=title)
    return session.UpdateConversationRequest(conversation=conversation, update_mask=FieldMask(paths=paths))
