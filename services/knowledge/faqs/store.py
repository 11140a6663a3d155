"""FAQs in PostgreSQL; each change with its event in one statement."""

import hashlib
import struct
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from parley.knowledge.v1.knowledge_events_pb2 import FaqChanged, FaqDeleted
from services.knowledge.document import Member
from services.knowledge.faqs.faq import Duplicate, Faq, Full, Wording, asked
from services.knowledge.faqs.matching import Asked, News
from services.knowledge.search import Vector
from services.shared.postgres.database import Database


class StoredFaqs:
    """Implements faq.Faqs, matching.MatchedFaqs and learning.UnlearntFaqs, with the vectors of one model."""

    def __init__(self, database: Database, model: str, limit: int) -> None:
        """`limit`: FAQs of one organisation."""
        self._database = database
        self._model = model
        self._limit = limit

    async def find(self, tenant_id: UUID, faq_id: UUID) -> Faq | None:
        row = await self._database.one("find_faq", tenant_id, faq_id)
        return _faq(row) if row else None

    async def newest(self, tenant_id: UUID, before: tuple[datetime, UUID] | None, limit: int) -> Sequence[Faq]:
        rows = await self._database.all("newest_faqs", tenant_id, *(before or (None, None)), limit)
        return [_faq(row) for row in rows]

    async def add(
        self, member: Member, request_id: UUID, faq_id: UUID, wording: Wording, vectors: Sequence[Vector] | None
    ) -> Faq | Duplicate | Full:
        values = (
            *(member.tenant_id, member.user_id, request_id, wording.sha256, faq_id, *_said(wording)),
            *(self._limit, self._model, _packed(vectors), _changed(member, faq_id)),
        )
        try:
            row = await self._database.one("add_faq", *values)
        except asyncpg.UniqueViolationError:  # the same came at once, and is visible now
            row = await self._database.one("add_faq", *values)
        if row is None:
            return Full(self._limit)
        return _faq(row) if row["is_first"] else Duplicate(row["id"])

    async def change(
        self, member: Member, faq: Faq, wording: Wording, vectors: Sequence[Vector] | None
    ) -> Faq | Duplicate | None:
        rephrased = wording.phrasings != faq.wording.phrasings
        values = (
            *(member.tenant_id, faq.id, faq.revision, *_said(wording)),
            *(rephrased, self._model, _packed(vectors), _changed(member, faq.id)),
        )
        try:
            row = await self._database.one("change_faq", *values)
        except asyncpg.UniqueViolationError:
            row = await self._database.one("find_faq_by_question", member.tenant_id, _question_sha256(wording))
            return Duplicate(row["id"]) if row else None
        return _faq(row) if row else None

    async def delete(self, member: Member, faq_id: UUID) -> bool:
        event = FaqDeleted(**_ids(member, faq_id)).SerializeToString()
        return await self._database.one("delete_faq", member.tenant_id, faq_id, event) is not None

    async def since(self, tenant_id: UUID, revision: int) -> News:
        rows = await self._database.all("faqs_since", tenant_id, revision, self._model)
        if not rows:
            return News(0, 0, ())
        changed = tuple(
            Asked(row["id"], (row["question"], *row["alternatives"]), row["vectors"]) for row in rows if row["id"]
        )
        return News(rows[0]["newest"], rows[0]["total"], changed)

    async def unlearnt(self, limit: int) -> Sequence[Faq]:
        """FAQs of any organisation whose phrasings have no vectors of the model."""
        return [_faq(row) for row in await self._database.all("faqs_without_vectors", self._model, limit)]

    async def learn(self, faq: Faq, vectors: Sequence[Vector]) -> None:
        """Keep the vectors, unless the FAQ has changed since it was read."""
        packed = _packed(vectors)
        await self._database.one("learn_faq", faq.tenant_id, faq.id, faq.revision, self._model, packed)


def _said(wording: Wording) -> tuple[object, ...]:
    return wording.question, _question_sha256(wording), wording.alternatives, wording.answer


def _question_sha256(wording: Wording) -> bytes:
    return hashlib.sha256(asked(wording.question).encode()).digest()


def _packed(vectors: Sequence[Vector] | None) -> bytes | None:
    """FP16, one vector after another."""
    if vectors is None:
        return None
    values = [value for vector in vectors for value in vector]
    return struct.pack(f"<{len(values)}e", *values)


def _ids(member: Member, faq_id: UUID) -> dict[str, str]:
    return {"tenant_id": str(member.tenant_id), "user_id": str(member.user_id), "faq_id": str(faq_id)}


def _changed(member: Member, faq_id: UUID) -> bytes:
    return FaqChanged(**_ids(member, faq_id)).SerializeToString()


def _faq(row: asyncpg.Record) -> Faq:
    return Faq(
        id=row["id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        wording=Wording(row["question"], tuple(row["alternatives"]), row["answer"]),
        revision=row["revision"],
        request_sha256=row["request_sha256"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
