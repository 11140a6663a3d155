"""The record of turns in PostgreSQL, as one replica of chat sees it; each change with its event in one statement."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from services.chat import wire
from services.chat.turn import (
    Asker,
    CancellationCause,
    Cancelled,
    Completed,
    End,
    Failed,
    FinishReason,
    Follows,
    Place,
    Question,
    Rating,
    Replaces,
    Turn,
    TurnRecord,
    Usage,
    Verdict,
)
from services.chat.turns import Claim
from services.shared.errors import Reason
from services.shared.postgres.database import Database

_PLACES: dict[str, type[Follows] | type[Replaces]] = {"follows": Follows, "replaces": Replaces}


class StoredTurns:
    """Implements turns.TurnRecords and ownership.Leases."""

    def __init__(self, database: Database, replica_id: UUID) -> None:
        self._database = database
        self._replica_id = replica_id
        self._renewed: datetime | None = None  # by the record's clock

    async def claim(self, turn: Turn, digest: bytes, open_turns: int) -> Claim | None:
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
            turn.time_left_s,
            self._replica_id,
            turn.log_incarnation,
            _fields(turn.question),
            turn.asker.token,
            open_turns,
        )
        return Claim(**row) if row else None

    async def release(self, turn: Turn) -> None:
        await self._database.one("release", *_run(turn))

    async def retake(self, turn: Turn) -> Turn | None:
        row = await self._database.one("retake", *_run(turn))
        return _turn(row) if row else None

    async def mark_log(self, turn: Turn, incarnation: str | None) -> bool:
        return await self._database.one("mark_log", *_run(turn), incarnation) is not None

    async def finish(
        self, turn: Turn, end: End, usage: Usage, message_id: UUID | None, first_text_time: datetime | None
    ) -> bool:
        row = await self._database.one(
            "finish",
            *_run(turn),
            type(end).__name__.lower(),
            message_id,
            end.finish_reason if isinstance(end, Completed) else None,
            end.reason if isinstance(end, Failed) else None,
            end.message if isinstance(end, Failed) else None,
            end.cause if isinstance(end, Cancelled) else None,
            end.freed_after_ms if isinstance(end, Cancelled) else None,
            usage.prompt_tokens,
            usage.completion_tokens,
            first_text_time,
            *wire.turn_ended(turn, end, usage),
        )
        return bool(row and row["ours"])

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        row = await self._database.one("find", asker.tenant_id, asker.user_id, turn_id)
        return _record(row) if row else None

    async def request_cancel(self, asker: Asker, turn_id: UUID) -> TurnRecord | None:
        row = await self._database.one("request_cancel", asker.tenant_id, asker.user_id, turn_id)
        return _record(row) if row else None

    async def rate(self, asker: Asker, turn_id: UUID, rating: Rating) -> TurnRecord | None:
        row = await self._database.one(
            "rate",
            asker.tenant_id,
            asker.user_id,
            turn_id,
            rating.verdict,
            rating.reason,
            *wire.turn_rated(asker, turn_id, rating),
        )
        return _record(row) if row else None

    async def renew(self, lease_s: float) -> None:
        row = await self._database.one("renew", self._replica_id, lease_s)
        self._renewed = row and row["renew_time"]

    async def take_over(self, runs: Collection[UUID], limit: int) -> Sequence[Turn]:
        rows = await self._database.all("take_over", self._replica_id, list(runs), limit, self._renewed)
        return [_turn(row) for row in rows]

    async def wishes(self) -> Sequence[tuple[UUID, float]]:
        return [(row["id"], row["ago_s"]) for row in await self._database.all("wishes", self._replica_id)]

    async def has_others(self) -> bool:
        return await self._database.one("has_others", self._replica_id) is not None

    async def retire(self) -> None:
        await self._database.one("retire", self._replica_id)


def _run(turn: Turn) -> tuple[UUID, UUID, UUID]:
    return turn.asker.tenant_id, turn.id, turn.run_id


def _fields(question: Question) -> dict[str, object]:
    """What of a question has no column of its own."""
    place = question.place
    return {
        "text": question.text,
        "model": question.model,
        "max_output_tokens": question.max_output_tokens,
        "temperature": question.temperature,
        "search": question.search,
        "reader_grace_s": question.reader_grace_s,
        "place": [type(place).__name__.lower(), str(place.turn_id)] if place else None,
    }


def _place(field: Sequence[str] | None) -> Place | None:
    return _PLACES[field[0]](UUID(field[1])) if field else None


def _turn(row: asyncpg.Record) -> Turn:
    fields = row["question"]
    return Turn(
        id=row["id"],
        run_id=row["run_id"],
        asker=Asker(row["tenant_id"], row["user_id"], row["token"]),
        question=Question(
            request_id=row["request_id"],
            conversation_id=row["conversation_id"],
            **{**fields, "place": _place(fields["place"])},
        ),
        model=row["model"],
        create_time=row["create_time"],
        time_left_s=row["time_left_s"],
        runs=row["runs"],
        log_incarnation=row["log_incarnation"],
    )


def _record(row: asyncpg.Record) -> TurnRecord:
    verdict = row["rating"]
    return TurnRecord(
        id=row["id"],
        request_id=row["request_id"],
        conversation_id=row["conversation_id"],
        model=row["model"],
        create_time=row["create_time"],
        first_text_time=row["first_text_time"],
        end_time=row["end_time"],
        usage=Usage(row["prompt_tokens"], row["completion_tokens"]),
        message_id=row["message_id"],
        end=_end(row),
        rating=Rating(Verdict(verdict) if verdict else None, row["rating_reason"]),
    )


def _end(row: asyncpg.Record) -> End | None:
    match row["state"]:
        case "completed":
            return Completed(FinishReason(row["finish_reason"]), row["message_id"])
        case "failed":
            return Failed(Reason(row["failure_reason"]), row["failure_message"])
        case "cancelled":
            # Turns that were stopped before causes were kept have none.
            cause = CancellationCause(row["cancellation_cause"] or CancellationCause.STOPPED)
            return Cancelled(row["message_id"], cause, row["freed_after_ms"] or 0)
    return None
