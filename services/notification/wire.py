"""Between proto messages and domain values: feed entries, page tokens, and the events of other services."""

from uuid import UUID

from google.protobuf.message import Message

from parley.chat.v1.chat_events_pb2 import TurnCompleted
from parley.knowledge.v1.knowledge_events_pb2 import DocumentFailed, DocumentIndexed
from parley.notification.v1 import notification_pb2
from services.notification.notification import (
    LAST_SEQUENCE,
    AnswerReady,
    DocumentReady,
    DocumentRefused,
    Notification,
    Subject,
)
from services.shared.pages import foreign_token, page_key, page_token


def notification(found: Notification) -> notification_pb2.Notification:
    """The message of a feed entry."""
    return notification_pb2.Notification(
        id=str(found.id), sequence=found.sequence, create_time=found.create_time, **_subject(found.subject)
    )


def _subject(subject: Subject) -> dict[str, Message]:
    match subject:
        case DocumentReady(document_id, filename, passages):
            ready = notification_pb2.DocumentReady(document_id=str(document_id), filename=filename, passages=passages)
            return {"document_ready": ready}
        case DocumentRefused(document_id, filename, reason, message):
            refused = notification_pb2.DocumentRefused(
                document_id=str(document_id), filename=filename, reason=reason, message=message
            )
            return {"document_refused": refused}
        case AnswerReady(conversation_id, turn_id, message_id):
            answer = notification_pb2.AnswerReady(
                conversation_id=str(conversation_id), turn_id=str(turn_id), message_id=str(message_id)
            )
            return {"answer_ready": answer}


def older_token(last: Notification) -> str:
    """The page token of what is older than `last`."""
    return page_token(last.sequence)


def before_sequence(token: str) -> int:
    """Where the page of this token begins: all its entries have a smaller sequence. Raises Invalid."""
    if (key := page_key(token, 1)) is None:
        return LAST_SEQUENCE
    if not (key[0].isdecimal() and 1 <= int(key[0]) <= LAST_SEQUENCE):
        raise foreign_token()
    return int(key[0])


def heard(event_type: str, payload: bytes) -> tuple[UUID, Subject] | None:
    """The user whom an event concerns and what to tell; None for an event that says nothing to users.

    Raises DecodeError or ValueError for a payload that is no such event.
    """
    match event_type:
        case "parley.knowledge.v1.DocumentIndexed":
            indexed = DocumentIndexed.FromString(payload)
            if indexed.source_url:  # a site has many pages: its crawl tells of them
                return None
            ready = DocumentReady(UUID(indexed.document_id), indexed.filename, indexed.passages)
            return UUID(indexed.user_id), ready
        case "parley.knowledge.v1.DocumentFailed":
            failed = DocumentFailed.FromString(payload)
            if failed.source_url:
                return None
            refused = DocumentRefused(UUID(failed.document_id), failed.filename, failed.reason, failed.message)
            return UUID(failed.user_id), refused
        case "parley.chat.v1.TurnCompleted":
            turn = TurnCompleted.FromString(payload)
            if not turn.message_id:  # the model said nothing
                return None
            answer = AnswerReady(UUID(turn.conversation_id), UUID(turn.turn_id), UUID(turn.message_id))
            return UUID(turn.user_id), answer
        case _:
            return None
