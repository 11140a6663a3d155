"""A turn: a question, the numbered events of its answer, and how it ends.

The events are, in this order: Started, Sources, any number of TextDelta, Usage, and one of Completed, Failed,
Cancelled. After Rewound they come once more, from Sources on. A client tells them apart by their numbers alone, so no
number is ever given out twice, but for 1, which is always Started.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from services.shared.errors import Invalid, NotFound, Reason, Refusal, Unavailable

MAX_ANSWER_CHARACTERS = 200_000  # what a conversation takes as one message
DEFAULT_OUTPUT_TOKENS = 512
RETRY_AFTER_S = 2.0


@dataclass(frozen=True)
class Asker:
    """Who asks. `token` is handed on to peers, never logged."""

    tenant_id: UUID
    user_id: UUID
    token: str = field(repr=False)


@dataclass(frozen=True)
class Follows:
    """The place after a turn."""

    turn_id: UUID


@dataclass(frozen=True)
class Replaces:
    """The place beside a turn."""

    turn_id: UUID


Place = Follows | Replaces


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and how to answer; None: as the installation is set."""

    request_id: UUID
    conversation_id: UUID
    text: str
    model: str | None = None
    max_output_tokens: int = DEFAULT_OUTPUT_TOKENS
    temperature: float | None = None
    search: bool = True
    reader_grace_s: float | None = None
    place: Place | None = None  # None: at the end of the current branch

    def digest(self) -> bytes:
        """SHA-256 of the content: tells a repeat of the request from another one under the same id."""
        content = (
            str(self.conversation_id),
            self.text,
            self.model,
            self.max_output_tokens,
            self.temperature,
            self.search,
            self.reader_grace_s,
            repr(self.place),
        )
        return hashlib.sha256(json.dumps(content).encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question that was claimed for answering. `run_id` names one run of it, so that an older run can't end it."""

    id: UUID
    run_id: UUID
    asker: Asker
    question: Question
    model: str
    create_time: datetime  # as the record has it
    time_left_s: float  # until the turn's deadline, when it was claimed
    runs: int = 1  # how often it was begun or taken over
    log_incarnation: str | None = None  # the life of Valkey that has the whole log; None: its end may be missing


class Role(StrEnum):
    """Who said it."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Message:
    """Something said earlier in the conversation."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A piece of a document that fits the question, or a FAQ that answers it: then `faq_id` is its id, else empty."""

    id: str
    document_id: str
    title: str
    page: int | None
    headings: tuple[str, ...]
    text: str
    faq_id: str = ""


class FinishReason(StrEnum):
    """Why the model stopped by itself."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Started:
    """The question is saved and the turn runs."""

    conversation_id: UUID
    model: str
    create_time: datetime
    resumable: bool = True


@dataclass(frozen=True)
class Rewound:
    """All that came since Started is void, because words were lost or the turn is tried again: the answer follows."""


@dataclass(frozen=True)
class Sources:
    """The passages before the model, whose place in the tuple, from 1, is their number in the answer."""

    passages: tuple[Passage, ...]
    degraded: bool


@dataclass(frozen=True)
class TextDelta:
    """The next words."""

    text: str


@dataclass(frozen=True)
class Usage:
    """The model's work, in its own tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Completed:
    """The answer is whole and saved; no message when the model said nothing."""

    finish_reason: FinishReason
    message_id: UUID | None = None


@dataclass(frozen=True)
class Failed:
    """The turn ended without a whole answer."""

    reason: Reason
    message: str


class CancellationCause(StrEnum):
    """Why a turn was stopped."""

    REQUESTED = "requested"
    NO_READER = "no_reader"
    DEADLINE = "deadline"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Cancelled:
    """The turn was stopped; the message holds the words that had come."""

    message_id: UUID | None = None
    cause: CancellationCause = CancellationCause.REQUESTED
    freed_after_ms: int = 0  # from the wish to stop until the model was free


End = Completed | Failed | Cancelled
Event = Started | Rewound | Sources | TextDelta | Usage | End


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in its place in the turn, from 1, with the bytes that are stored in the log and sent to clients.

    `note` stays in the log: what a replica that takes the turn over must know beside the event.
    """

    sequence: int
    event: Event
    encoded: bytes
    note: str = ""


class Verdict(StrEnum):
    """What a user thinks of an answer."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True)
class Rating:
    """A verdict and why; None: not rated."""

    verdict: Verdict | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """What the record knows of a turn. `end` is None while it runs."""

    id: UUID
    request_id: UUID
    conversation_id: UUID
    model: str
    create_time: datetime
    first_text_time: datetime | None
    end_time: datetime | None
    usage: Usage
    message_id: UUID | None
    end: End | None
    rating: Rating


@dataclass(frozen=True)
class SavedAnswer:
    """How a turn stands in its conversation. Of two runs that end it, the first counts."""

    text: str
    whole: bool
    passages: tuple[Passage, ...]
    usage: Usage
    message_id: UUID | None  # None: no word had come


class TurnBroke(Exception):
    """The turn ended by a defect of ours, which was logged where it happened."""


def turn_not_found() -> NotFound:
    """The refusal for a turn that is not, or is somebody else's."""
    return NotFound(Reason.TURN_NOT_FOUND, "You have no such turn.")


def failure(refusal: Refusal) -> Failed:
    """The event that says why a turn failed."""
    return Failed(refusal.reason, refusal.message[:300])


def refusal_of(failed: Failed) -> Exception:
    """How a call ends whose turn failed."""
    if failed.reason is Reason.INTERNAL:
        return TurnBroke(failed.message)
    if failed.reason is Reason.PROMPT_TOO_LONG:
        return Invalid(failed.reason, failed.message)
    if failed.reason is Reason.CONVERSATION_NOT_FOUND:
        return NotFound(failed.reason, failed.message)
    return Unavailable(failed.reason, failed.message, retry_after_s=RETRY_AFTER_S)
