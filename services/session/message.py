"""A message: one question or one answer, with what the answer was drawn from and what it cost.

Messages stand in turns, and the turns of a conversation are a tree: a question that is edited or answered again
begins a branch beside the old one. Messages are read along one branch, from its first turn to its last.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from services.session.conversation import Owner
from services.shared.errors import NotFound, Reason


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
    """A passage or a FAQ that stood before the model; kept as chat gave it.

    `page` is None where the format has no pages; `faq_id` is empty for a passage.
    """

    number: int
    document_id: str
    passage_id: str
    title: str
    page: int | None
    headings: tuple[str, ...]
    snippet: str
    faq_id: str = ""


@dataclass(frozen=True)
class Usage:
    """The model's work, in its own tokens."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Message:
    """`position` orders the messages of a conversation; numbers may be missing. `usage` is None for questions.

    `parent_turn_id` is None where nothing was said before; `sibling_turn_ids` are the turns that stand in the same
    place, its own among them, oldest first.
    """

    id: UUID
    conversation_id: UUID
    turn_id: UUID
    position: int
    role: Role
    text: str
    state: State
    create_time: datetime
    parent_turn_id: UUID | None
    sibling_turn_ids: tuple[UUID, ...]
    citations: tuple[Citation, ...] = ()
    usage: Usage | None = None


# Together the messages of a page or a history stay within this: one more and its citations still fit into the
# 4 MiB that gRPC clients accept.
MAX_TOGETHER_BYTES = 2_000_000


@dataclass(frozen=True)
class Page:
    """`tip_turn_id` is the last turn of the branch when the page was read; None if no question was asked yet.

    The page after this one is that of the tip's branch: so it stays in this branch when a newer one becomes current,
    and goes on with it when it grows.
    """

    messages: tuple[Message, ...]
    more: bool
    tip_turn_id: UUID | None


class Messages(Protocol):
    """Reading what was said."""

    async def page(
        self, owner: Owner, conversation_id: UUID, after_position: int, limit: int, branch_turn_id: UUID | None = None
    ) -> Page:
        """At least one and at most `limit` messages of a branch after the position, oldest first.

        The branch is the one that leads through `branch_turn_id` to the last question asked below it; None: to the
        last question of all. The page ends once MAX_TOGETHER_BYTES are full. Raises conversation_not_found() and
        turn_not_found().
        """


def turn_not_found() -> NotFound:
    """The refusal for a turn that is not in the conversation, or was never opened by this user."""
    return NotFound(Reason.TURN_NOT_FOUND, "There is no such turn; its conversation may have been deleted.")
