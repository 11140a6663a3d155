"""A conversation: a thread of messages between one user and the assistant, and the title that it goes by."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.shared.errors import AlreadyExists, NotFound, Reason

_TITLE_CHARACTERS = 80


@dataclass(frozen=True)
class Owner:
    """Whose it is. For anybody else it does not exist, in the same organisation too."""

    tenant_id: UUID
    user_id: UUID


@dataclass(frozen=True)
class Conversation:
    """`title` is empty until the first question. `update_time`: of the last message or rename."""

    id: UUID
    title: str
    create_time: datetime
    update_time: datetime


# The last conversation of the page before, in the order of the list.
ConversationKey = tuple[datetime, UUID]


class Conversations(Protocol):
    """The record of conversations. Methods that take an id raise conversation_not_found() unless it is `owner`'s."""

    async def create(self, owner: Owner, request_id: UUID, title: str, digest: bytes) -> tuple[Conversation, bytes]:
        """Save a conversation unless `request_id` has made one; return the one it made, with its digest."""

    async def get(self, owner: Owner, conversation_id: UUID) -> Conversation: ...

    async def page(self, owner: Owner, after: ConversationKey | None, limit: int) -> list[Conversation]:
        """At most `limit` after the key, by (update_time, id), newest first."""

    async def rename(self, owner: Owner, conversation_id: UUID, title: str) -> Conversation: ...

    async def delete(self, owner: Owner, conversation_id: UUID) -> None:
        """Delete it with its turns and messages."""


async def create_conversation(conversations: Conversations, owner: Owner, request_id: UUID, title: str) -> Conversation:
    """Make a conversation, or return the one that this request made; raise AlreadyExists if it asked for another."""
    digest = hashlib.sha256(title.encode()).digest()
    conversation, made_from = await conversations.create(owner, request_id, title, digest)
    if made_from != digest:
        message = "This request_id made a conversation with another title: use a new one."
        raise AlreadyExists(Reason.REQUEST_ID_REUSED, message)
    return conversation


def title_from(question: str) -> str:
    """The first line with words in it, at most 80 characters, cut after a word; empty if there are no words."""
    line = next((" ".join(line.split()) for line in question.splitlines() if line.strip()), "")
    if len(line) <= _TITLE_CHARACTERS:
        return line
    head, _, _ = line[:_TITLE_CHARACTERS].rpartition(" ")  # room for the ellipsis is where the space was
    return (head or line[: _TITLE_CHARACTERS - 1]) + "…"


def conversation_not_found() -> NotFound:
    """The refusal for a conversation that does not exist for this user."""
    return NotFound(Reason.CONVERSATION_NOT_FOUND, "There is no such conversation.")
