"""Between proto messages and domain values: questions, the events of a turn, and what other services learn of it."""

from collections.abc import Sequence
from datetime import UTC
from uuid import UUID

from parley.chat.v1 import chat_events_pb2
from parley.chat.v1.chat_service_pb2 import StartTurnRequest, StartTurnResponse
from parley.chat.v1.turn_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    TextDelta,
    TurnCancellation,
    TurnCompletion,
    TurnEvent,
    TurnFailure,
    TurnSources,
    TurnStarted,
)
from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.session.v1 import session_pb2
from services.chat import turn as domain
from services.chat.turn import DEFAULT_OUTPUT_TOKENS, Entry, Event, FinishReason, Passage, Question
from services.shared.errors import Reason

_FINISH_REASONS = {FinishReason.STOP: FINISH_REASON_STOP, FinishReason.LENGTH: FINISH_REASON_LENGTH}
_REASONS_TO_FINISH = {number: reason for reason, number in _FINISH_REASONS.items()}
_REASON_PREFIX = "ERROR_REASON_"


def question(request: StartTurnRequest) -> Question:
    """The question that a request asks."""
    options = request.options
    return Question(
        request_id=UUID(request.request_id),
        conversation_id=UUID(request.conversation_id),
        text=request.text,
        model=options.model if options.HasField("model") else None,
        max_output_tokens=options.max_output_tokens if options.HasField("max_output_tokens") else DEFAULT_OUTPUT_TOKENS,
        temperature=options.temperature if options.HasField("temperature") else None,
        search=options.search if options.HasField("search") else True,
    )


def start_turn_response(entry: Entry) -> StartTurnResponse:
    """An entry of the turn as a reader gets it."""
    response = StartTurnResponse()
    response.event.ParseFromString(entry.encoded)
    return response


def encode(turn_id: UUID, sequence: int, event: Event) -> bytes:
    """A serialised TurnEvent: made once, stored in the log and sent to every reader."""
    return _turn_event(str(turn_id), sequence, event).SerializeToString()


def decode(encoded: bytes) -> Entry:
    """An entry of the log. Of its sources only their being there is kept: nobody decides by them any more."""
    message = TurnEvent.FromString(encoded)
    return Entry(message.sequence, _event(message), encoded)


def _turn_event(turn_id: str, sequence: int, event: Event) -> TurnEvent:
    match event:
        case domain.TextDelta(text):
            return TurnEvent(turn_id=turn_id, sequence=sequence, text_delta=TextDelta(text=text))
        case domain.Started(conversation_id, model, create_time):
            started = TurnStarted(conversation_id=str(conversation_id), model=model, create_time=create_time)
            return TurnEvent(turn_id=turn_id, sequence=sequence, started=started)
        case domain.Sources(passages, degraded):
            sources = TurnSources(citations=citations(passages), degraded=degraded)
            return TurnEvent(turn_id=turn_id, sequence=sequence, sources=sources)
        case domain.Usage():
            return TurnEvent(turn_id=turn_id, sequence=sequence, usage=usage(event))
        case domain.Completed(finish_reason, message_id):
            completed = TurnCompletion(message_id=_text(message_id), finish_reason=_FINISH_REASONS[finish_reason])
            return TurnEvent(turn_id=turn_id, sequence=sequence, completed=completed)
        case domain.Failed(reason, message):
            failed = TurnFailure(reason=_reason(reason), message=message)
            return TurnEvent(turn_id=turn_id, sequence=sequence, failed=failed)
        case domain.Cancelled(message_id):
            cancelled = TurnCancellation(message_id=_text(message_id))
            return TurnEvent(turn_id=turn_id, sequence=sequence, cancelled=cancelled)


def _event(message: TurnEvent) -> Event:
    match message.WhichOneof("event"):
        case "text_delta":
            return domain.TextDelta(message.text_delta.text)
        case "started":
            started = message.started
            create_time = started.create_time.ToDatetime(tzinfo=UTC)
            return domain.Started(UUID(started.conversation_id), started.model, create_time)
        case "sources":
            return domain.Sources((), message.sources.degraded)
        case "usage":
            return domain.Usage(message.usage.prompt_tokens, message.usage.completion_tokens)
        case "completed":
            completed = message.completed
            return domain.Completed(_REASONS_TO_FINISH[completed.finish_reason], _uuid(completed.message_id))
        case "failed":
            name = ErrorReason.Name(message.failed.reason).removeprefix(_REASON_PREFIX)
            return domain.Failed(Reason(name), message.failed.message)
        case "cancelled":
            return domain.Cancelled(_uuid(message.cancelled.message_id))
        case unknown:
            raise ValueError(f"the log holds an event of kind {unknown}")


def citations(passages: Sequence[Passage]) -> list[session_pb2.Citation]:
    """Numbered by place, with no more of the text than a reader needs to recognise it."""
    return [
        session_pb2.Citation(
            number=number,
            document_id=passage.document_id,
            passage_id=passage.id,
            title=passage.title[:255],
            page=passage.page,
            headings=_bounded(passage.headings, 300),
            snippet=passage.text[:300],
        )
        for number, passage in enumerate(passages, 1)
    ]


def usage(spent: domain.Usage) -> session_pb2.Usage:
    """The message of the model's work."""
    return session_pb2.Usage(prompt_tokens=spent.prompt_tokens, completion_tokens=spent.completion_tokens)


def turn_ended(turn: domain.Turn, end: domain.End, spent: domain.Usage) -> tuple[str, bytes]:
    """Type and payload of the fact that other services learn."""
    ids = {
        "tenant_id": str(turn.asker.tenant_id),
        "user_id": str(turn.asker.user_id),
        "turn_id": str(turn.id),
        "conversation_id": str(turn.question.conversation_id),
    }
    match end:
        case domain.Completed(_, message_id):
            fact = chat_events_pb2.TurnCompleted(
                **ids, message_id=_text(message_id), model=turn.model, usage=usage(spent)
            )
        case domain.Failed(reason, _):
            fact = chat_events_pb2.TurnFailed(**ids, reason=_reason(reason))
        case domain.Cancelled():
            fact = chat_events_pb2.TurnCancelled(**ids)
    return fact.DESCRIPTOR.full_name, fact.SerializeToString()


def _bounded(parts: Sequence[str], characters: int) -> list[str]:
    """As many parts as there is room for, the last of them cut."""
    kept: list[str] = []
    for part in parts:
        if characters <= 0:
            break
        kept.append(part[:characters])
        characters -= len(part)
    return kept


def _reason(reason: Reason) -> ErrorReason:
    return ErrorReason.Value(f"{_REASON_PREFIX}{reason}")


def _text(value: UUID | None) -> str:
    return str(value) if value else ""


def _uuid(value: str) -> UUID | None:
    return UUID(value) if value else None
