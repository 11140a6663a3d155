"""Between proto messages and domain values: questions, the events of a turn, and what other services learn of it."""

from collections.abc import Sequence
from datetime import UTC
from typing import TypeVar
from uuid import UUID

from parley.chat.v1 import chat_events_pb2
from parley.chat.v1.chat_service_pb2 import (
    RateTurnRequest,
    ResumeTurnResponse,
    StartTurnRequest,
    StartTurnResponse,
    TurnOptions,
)
from parley.chat.v1.turn_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    CancellationCause,
    TextDelta,
    TurnCancellation,
    TurnCompletion,
    TurnEvent,
    TurnFailure,
    TurnRating,
    TurnRewound,
    TurnSources,
    TurnStarted,
    TurnState,
)
from parley.chat.v1.turn_pb2 import Turn as TurnMessage
from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.session.v1 import session_pb2
from services.chat import turn as domain
from services.chat.turn import (
    DEFAULT_OUTPUT_TOKENS,
    Entry,
    Event,
    FinishReason,
    Follows,
    Passage,
    Place,
    Question,
    Rating,
    Replaces,
    TurnRecord,
    Verdict,
)
from services.shared.errors import Reason

_FINISH_REASONS = {FinishReason.STOP: FINISH_REASON_STOP, FinishReason.LENGTH: FINISH_REASON_LENGTH}
_REASONS_TO_FINISH = {number: reason for reason, number in _FINISH_REASONS.items()}
_REASON_PREFIX = "ERROR_REASON_"
_CAUSE_PREFIX = "CANCELLATION_CAUSE_"
_RATINGS = {
    None: TurnRating.TURN_RATING_UNSPECIFIED,
    Verdict.GOOD: TurnRating.TURN_RATING_GOOD,
    Verdict.BAD: TurnRating.TURN_RATING_BAD,
}
_VERDICTS = {number: verdict for verdict, number in _RATINGS.items()}
_STATES = {
    type(None): TurnState.TURN_STATE_RUNNING,
    domain.Completed: TurnState.TURN_STATE_COMPLETED,
    domain.Failed: TurnState.TURN_STATE_FAILED,
    domain.Cancelled: TurnState.TURN_STATE_CANCELLED,
}
Streamed = TypeVar("Streamed", StartTurnResponse, ResumeTurnResponse)


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
        reader_grace_s=_reader_grace_s(options),
        place=_place(request),
    )


def _reader_grace_s(options: TurnOptions) -> float | None:
    if not options.HasField("reader_grace"):
        return None
    return options.reader_grace.seconds + options.reader_grace.nanos / 1e9


def _place(request: StartTurnRequest) -> Place | None:
    match request.WhichOneof("place"):
        case "follows_turn_id":
            return Follows(UUID(request.follows_turn_id))
        case "replaces_turn_id":
            return Replaces(UUID(request.replaces_turn_id))
    return None


def rating(request: RateTurnRequest) -> Rating:
    """What the caller thinks of an answer."""
    return Rating(_VERDICTS[request.rating], request.reason)


def response(empty: Streamed, entry: Entry) -> Streamed:
    """The empty response, filled with an entry of the turn as a reader gets it."""
    empty.event.ParseFromString(entry.encoded)
    return empty


def turn(record: TurnRecord) -> TurnMessage:
    """A turn as its asker gets it."""
    message = TurnMessage(
        id=str(record.id),
        request_id=str(record.request_id),
        conversation_id=str(record.conversation_id),
        model=record.model,
        state=_STATES[type(record.end)],
        create_time=record.create_time,
        first_text_time=record.first_text_time,
        end_time=record.end_time if record.end else None,
        usage=usage(record.usage) if record.end else None,
        message_id=_text(record.message_id) if record.end else "",
        rating=_RATINGS[record.rating.verdict],
        rating_reason=record.rating.reason,
    )
    if isinstance(record.end, domain.Failed):
        message.failure.CopyFrom(_failure(record.end))
    return message


def encode(turn_id: UUID, sequence: int, event: Event) -> bytes:
    """A serialised TurnEvent: made once, stored in the log and sent to every reader."""
    return _turn_event(str(turn_id), sequence, event).SerializeToString()


def decode(encoded: bytes, note: str = "") -> Entry:
    """An entry of the log. Of its passages it has no more text than was shown."""
    message = TurnEvent.FromString(encoded)
    return Entry(message.sequence, _event(message), encoded, note)


def _turn_event(turn_id: str, sequence: int, event: Event) -> TurnEvent:
    match event:
        case domain.TextDelta(text):
            return TurnEvent(turn_id=turn_id, sequence=sequence, text_delta=TextDelta(text=text))
        case domain.Started(conversation_id, model, create_time, resumable):
            started = TurnStarted(
                conversation_id=str(conversation_id), model=model, create_time=create_time, resumable=resumable
            )
            return TurnEvent(turn_id=turn_id, sequence=sequence, started=started)
        case domain.Rewound():
            return TurnEvent(turn_id=turn_id, sequence=sequence, rewound=TurnRewound())
        case domain.Sources(passages, degraded):
            sources = TurnSources(citations=citations(passages), degraded=degraded)
            return TurnEvent(turn_id=turn_id, sequence=sequence, sources=sources)
        case domain.Usage():
            return TurnEvent(turn_id=turn_id, sequence=sequence, usage=usage(event))
        case domain.Completed(finish_reason, message_id):
            completed = TurnCompletion(message_id=_text(message_id), finish_reason=_FINISH_REASONS[finish_reason])
            return TurnEvent(turn_id=turn_id, sequence=sequence, completed=completed)
        case domain.Failed():
            return TurnEvent(turn_id=turn_id, sequence=sequence, failed=_failure(event))
        case domain.Cancelled(message_id, cause, freed_after_ms):
            cancelled = TurnCancellation(
                message_id=_text(message_id),
                cause=CancellationCause.Value(f"{_CAUSE_PREFIX}{cause.name}"),
                freed_after_ms=min(freed_after_ms, 2**32 - 1),
            )
            return TurnEvent(turn_id=turn_id, sequence=sequence, cancelled=cancelled)


def _event(message: TurnEvent) -> Event:
    match message.WhichOneof("event"):
        case "text_delta":
            return domain.TextDelta(message.text_delta.text)
        case "started":
            started = message.started
            create_time = started.create_time.ToDatetime(tzinfo=UTC)
            return domain.Started(UUID(started.conversation_id), started.model, create_time, started.resumable)
        case "rewound":
            return domain.Rewound()
        case "sources":
            passages = tuple(passage(citation) for citation in message.sources.citations)
            return domain.Sources(passages, message.sources.degraded)
        case "usage":
            return domain.Usage(message.usage.prompt_tokens, message.usage.completion_tokens)
        case "completed":
            completed = message.completed
            return domain.Completed(_REASONS_TO_FINISH[completed.finish_reason], _uuid(completed.message_id))
        case "failed":
            name = ErrorReason.Name(message.failed.reason).removeprefix(_REASON_PREFIX)
            return domain.Failed(Reason(name), message.failed.message)
        case "cancelled":
            cause = CancellationCause.Name(message.cancelled.cause).removeprefix(_CAUSE_PREFIX)
            return domain.Cancelled(
                _uuid(message.cancelled.message_id),
                domain.CancellationCause[cause],
                message.cancelled.freed_after_ms,
            )
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
            faq_id=passage.faq_id,
        )
        for number, passage in enumerate(passages, 1)
    ]


def passage(citation: session_pb2.Citation) -> Passage:
    """A passage, with no more text than was shown of it."""
    return Passage(
        id=citation.passage_id,
        document_id=citation.document_id,
        title=citation.title,
        page=citation.page if citation.HasField("page") else None,
        headings=tuple(citation.headings),
        text=citation.snippet,
        faq_id=citation.faq_id,
    )


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


def turn_rated(asker: domain.Asker, turn_id: UUID, value: Rating) -> tuple[str, bytes]:
    """Type and payload of the fact that other services learn."""
    fact = chat_events_pb2.TurnRated(
        tenant_id=str(asker.tenant_id),
        user_id=str(asker.user_id),
        turn_id=str(turn_id),
        rating=_RATINGS[value.verdict],
        reason=value.reason,
    )
    return fact.DESCRIPTOR.full_name, fact.SerializeToString()


def _failure(failed: domain.Failed) -> TurnFailure:
    return TurnFailure(reason=_reason(failed.reason), message=failed.message)


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
