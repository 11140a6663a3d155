"""What a user hears of, and the feed that keeps it. A feed belongs to a user of a tenant, never to a user alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

LAST_SEQUENCE = 2**63 - 1


@dataclass(frozen=True)
class DocumentReady:
    """A document of the user can be found."""

    document_id: UUID
    filename: str
    passages: int


@dataclass(frozen=True)
class DocumentRefused:
    """A document of the user can't be indexed."""

    document_id: UUID
    filename: str
    # Number of the ErrorReason, kept as it came: the service that failed may know reasons that this one does not.
    reason: int
    message: str


@dataclass(frozen=True)
class AnswerReady:
    """An answer to the user is whole."""

    conversation_id: UUID
    turn_id: UUID
    message_id: UUID


Subject = DocumentReady | DocumentRefused | AnswerReady


@dataclass(frozen=True)
class Owner:
    """Whose feed it is."""

    tenant_id: UUID
    user_id: UUID


@dataclass(frozen=True)
class Notification:
    """One entry of a feed. `sequence` is its place there, from 1."""

    id: UUID
    sequence: int
    create_time: datetime
    subject: Subject


class Notifications(Protocol):
    """The stored feeds of all users."""

    async def add(self, event_id: UUID, owner: Owner, subject: Subject, create_time: datetime) -> None:
        """Put the subject at the end of the owner's feed and wake its watchers; nothing if the event came before."""

    async def newest(self, owner: Owner, before_sequence: int, limit: int) -> Sequence[Notification]:
        """At most `limit` entries with a smaller sequence, newest first."""

    async def after(self, owner: Owner, sequence: int, limit: int) -> Sequence[Notification]:
        """At most `limit` entries with a greater sequence, oldest first."""
