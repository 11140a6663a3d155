"""The feeds in PostgreSQL; an event takes effect in one statement with its inbox row."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.notification.notification import (
    AnswerReady,
    DocumentReady,
    DocumentRefused,
    Notification,
    Owner,
    Subject,
)
from services.shared.postgres.database import Database

# The names are stored: they outlive the names of the classes.
_KINDS: dict[str, type[Subject]] = {
    "document_ready": DocumentReady,
    "document_refused": DocumentRefused,
    "answer_ready": AnswerReady,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class StoredNotifications:
    """Implements notification.Notifications."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, event_id: UUID, owner: Owner, subject: Subject, create_time: datetime) -> None:
        values = {
            name: str(value) if isinstance(value, UUID) else value
            for name, value in dataclasses.asdict(subject).items()
        }
        place = (event_id, owner.tenant_id, owner.user_id)
        await self._database.one("add", *place, _NAMES[type(subject)], values, create_time)

    async def newest(self, owner: Owner, before_sequence: int, limit: int) -> Sequence[Notification]:
        rows = await self._database.all("newest", owner.tenant_id, owner.user_id, before_sequence, limit)
        return [_notification(row) for row in rows]

    async def after(self, owner: Owner, sequence: int, limit: int) -> Sequence[Notification]:
        rows = await self._database.all("after", owner.tenant_id, owner.user_id, sequence, limit)
        return [_notification(row) for row in rows]


def _notification(row: asyncpg.Record) -> Notification:
    kind = _KINDS[row["kind"]]
    values: dict[str, Any] = {
        field.name: UUID(row["subject"][field.name]) if field.type is UUID else row["subject"][field.name]
        for field in dataclasses.fields(kind)
    }
    return Notification(row["id"], row["sequence"], row["create_time"], kind(**values))
