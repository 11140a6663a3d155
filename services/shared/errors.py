"""The refusals that a domain may raise: a kind (the status), a reason (for programs), facts and a message (for people).

Only `serving` turns a refusal into a gRPC status. `Reason` repeats parley.errors.v1.ErrorReason; a contract test
keeps the two equal.
"""

from collections.abc import Mapping
from enum import StrEnum, auto


class Reason(StrEnum):
    """The machine-readable reason; error_reason.proto explains each."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    INVALID_FIELD = auto()
    MALFORMED_REQUEST = auto()
    PAGE_TOKEN_INVALID = auto()
    REQUEST_ID_REUSED = auto()
    RATE_LIMITED = auto()
    DEADLINE_EXCEEDED = auto()
    INTERNAL = auto()
    RECORD_UNAVAILABLE = auto()
    ROUTE_NOT_FOUND = auto()
    SERVICE_UNAVAILABLE = auto()
    REQUEST_TOO_LARGE = auto()

    TOKEN_MISSING = auto()
    TOKEN_INVALID = auto()
    TOKEN_EXPIRED = auto()
    BAD_CREDENTIALS = auto()
    REFRESH_TOKEN_INVALID = auto()
    REFRESH_TOKEN_REUSED = auto()
    PEER_NOT_ALLOWED = auto()
    EMAIL_TAKEN = auto()
    SIGN_IN_BUSY = auto()

    CONVERSATION_NOT_FOUND = auto()
    TURN_NOT_FOUND = auto()
    TURN_ALREADY_CLOSED = auto()

    MODEL_UNKNOWN = auto()
    MODEL_UNAVAILABLE = auto()
    PROMPT_TOO_LONG = auto()
    CONVERSATION_UNAVAILABLE = auto()
    TURN_LOG_UNAVAILABLE = auto()
    SEQUENCE_BEYOND_LOG = auto()
    TURN_NOT_RESUMABLE = auto()
    TOO_MANY_TURNS = auto()
    TOO_MANY_READERS = auto()

    DOCUMENT_NOT_FOUND = auto()
    UPLOAD_NOT_FOUND = auto()
    UPLOAD_OFFSET_MISMATCH = auto()
    UPLOAD_INCOMPLETE = auto()
    CHECKSUM_MISMATCH = auto()
    DOCUMENT_TOO_LARGE = auto()
    DOCUMENT_EMPTY = auto()
    UNSUPPORTED_FORMAT = auto()
    DOCUMENT_CORRUPT = auto()
    DOCUMENT_ENCRYPTED = auto()
    DOCUMENT_WITHOUT_TEXT = auto()
    EXTRACTION_LIMIT = auto()
    INDEXING_FAILED = auto()
    SEARCH_UNAVAILABLE = auto()
    STORAGE_UNAVAILABLE = auto()
    DOCUMENT_NOT_YOURS = auto()
    DOCUMENT_DUPLICATE = auto()
    KNOWLEDGE_FULL = auto()

    FAQ_NOT_FOUND = auto()
    FAQ_DUPLICATE = auto()
    FAQS_FULL = auto()
    FAQ_NOT_YOURS = auto()
    CRAWL_NOT_FOUND = auto()
    CRAWL_RUNNING = auto()
    CRAWL_NOT_YOURS = auto()
    TOO_MANY_CRAWLS = auto()
    URL_INVALID = auto()
    ADDRESS_NOT_ALLOWED = auto()
    ROBOTS_DISALLOWED = auto()
    PAGE_NOT_REACHABLE = auto()
    PAGE_TOO_LARGE = auto()
    PAGE_NOT_INDEXABLE = auto()


class Refusal(Exception):
    """An expected "no". `message` tells a person what to do; facts are small values, safe to show to the caller."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retry_after_s: float | None = None,
        violations: Mapping[str, str] | None = None,
        **facts: object,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.violations = dict(violations or {})
        self.facts = {name: str(value) for name, value in facts.items()}


class NotFound(Refusal):
    """The object does not exist, or exists for somebody else."""


class Invalid(Refusal):
    """The request can never work as it is. `violations` maps a field's path to what is wrong with it."""


class Unauthenticated(Refusal):
    """It is not known who asks."""


class Forbidden(Refusal):
    """It is known who asks, and this caller may not."""


class AlreadyExists(Refusal):
    """The name or id is taken."""


class WrongState(Refusal):
    """The object is not in a state that allows this."""


class Conflict(Refusal):
    """Somebody else changed the object meanwhile; read it again."""


class Exhausted(Refusal):
    """A limit is reached; `retry_after_s` says when to come back."""


class Unavailable(Refusal):
    """Something that is needed can't be reached; the same request may work later."""


class DeadlineExceeded(Refusal):
    """The caller's time is over."""
