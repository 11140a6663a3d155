"""A message: one question or one answer, with what the answer was drawn from and what it cost."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from services.session.conversation import Owner


class Role(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


class State(StrEnum):
    """Whether the words are all there."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Citation:
    """A passage that stood before the model; kept as chat gave it. `page` is None where the format has no pages."""

    number: int
    document_id: str
    passage_id: str
    title: str
    page: int | None
    headings: tuple[str, ...]
    snippet: str


@dataclass(frozen=True)
class Usage:
    """The model's work, in its own tokens."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Message:
    """`position` orders the messages of a conversation; numbers may be missing. `usage` is None for questions."""

    id: UUID
    conversation_id: UUID
    turn_id: UUID
    position: int
    role: Role
    text: str
    state: State
    create_time: datetime
    citations: tuple[Citation, ...] = ()
    usage: Usage | None = None


# Together the messages of a page or a history stay within this: one more and its citations still fit into the
# 4 MiB that gRPC clients accept.
MAX_TOGETHER_BYTES = 2_000_000


class Messages(Protocol):
    """Reading what was said."""

    async def page(
        self, owner: Owner, conversation_id: UUID, after_position: int, limit: int
    ) -> tuple[list[Message], bool]:
        """At least one and at most `limit` messages after the position, oldest first, and whether there are more.

        The page ends once MAX_TOGETHER_BYTES are full. Raises conversation_not_found().
        """
