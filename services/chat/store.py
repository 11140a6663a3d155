"""The record of turns in PostgreSQL; each change with its event in one statement."""

from uuid import UUID

import asyncpg

from services.chat import wire
from services.chat.turn import Asker, Cancelled, Completed, End, Failed, FinishReason, Turn, TurnRecord, Usage
from services.chat.turns import Claim
from services.shared.errors import Reason
from services.shared.postgres.database import Database

_MARGIN_S = 60.0  # for opening and closing, beyond the time in which the model may speak


class StoredTurns:
    """Implements turns.TurnRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, turn: Turn, digest: bytes, lifetime_s: float) -> Claim:
        row = await self._database.one(
            "claim",
            turn.asker.tenant_id,
            turn.id,
            turn.asker.user_id,
            turn.question.request_id,
            digest,
            turn.question.conversation_id,
            turn.model,
            turn.run_id,
            lifetime_s + _MARGIN_S,
        )
        assert row
        return Claim(row["id"], ours=row["ours"], same_content=row["same_content"])

    async def release(self, turn: Turn) -> None:
        await self._database.one("release", turn.asker.tenant_id, turn.id, turn.run_id)

    async def finish(self, turn: Turn, end: End, usage: Usage, message_id: UUID | None) -> None:
        await self._database.one(
            "finish",
            turn.asker.tenant_id,
            turn.id,
            turn.run_id,
            type(end).__name__.lower(),
            message_id,
            end.finish_reason if isinstance(end, Completed) else None,
            end.reason if isinstance(end, Failed) else None,
            end.message if isinstance(end, Failed) else None,
            usage.prompt_tokens,
            usage.completion_tokens,
            *wire.turn_ended(turn, end, usage),
        )

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        row = await self._database.one("find", asker.tenant_id, asker.user_id, turn_id)
        return _record(row) if row else None


def _record(row: asyncpg.Record) -> TurnRecord:
    return TurnRecord(
        conversation_id=row["conversation_id"],
        model=row["model"],
        create_time=row["create_time"],
        usage=Usage(row["prompt_tokens"], row["completion_tokens"]),
        end=_end(row),
        overdue=row["overdue"],
    )


def _end(row: asyncpg.Record) -> End | None:
    match row["state"]:
        case "completed":
            return Completed(FinishReason(row["finish_reason"]), row["message_id"])
        case "failed":
            return Failed(Reason(row["failure_reason"]), row["failure_message"])
        case "cancelled":
            return Cancelled(row["message_id"])
    return None
