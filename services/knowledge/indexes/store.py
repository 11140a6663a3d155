"""The indexes in PostgreSQL: which there are, and what each holds."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from services.knowledge.document import Document
from services.knowledge.indexes.reconcile import Stored
from services.knowledge.indexes.version import Holding, IndexState, IndexVersion, Row
from services.knowledge.passages import Passage
from services.knowledge.store import document_of, passage_of, passage_rows
from services.shared.errors import Reason, Unavailable
from services.shared.postgres.database import Database

_ALONE = "SELECT pg_advisory_lock(hashtext(current_schema() || '.indexes'))"


class StoredIndexes:
    """Implements rebuild.RebuildRecord, rebuilding.Rebuilds, rereading.RereadRecord and
    reconcile.CheckedRecord."""

    def __init__(self, database: Database, first_model: str, first_dimensions: int) -> None:
        """The first index of an installation is of this model."""
        self._database = database
        self._first = (first_model, first_dimensions)

    async def live(self) -> Sequence[IndexVersion]:
        if not (rows := await self._database.all("live_indexes")):
            await self._database.one("first_index", *self._first)
            rows = await self._database.all("live_indexes")
        return [_version(row) for row in rows]

    async def find_version(self, index_id: int) -> IndexVersion | None:
        row = await self._database.one("find_index", index_id)
        return _version(row) if row else None

    async def begin(
        self, request_id: UUID, model: str, dimensions: int, from_originals: bool = False
    ) -> IndexVersion | None:
        row = await self._database.one("begin_rebuild", request_id, model, dimensions, from_originals)
        return _version(row) if row else None

    async def cancel(self) -> None:
        await self._database.one("cancel_rebuild")

    async def held(self, index_id: int) -> Holding:
        row = await self._database.one("held_by_index", index_id)
        assert row
        return Holding(row["documents"], row["documents_held"], row["passages"], row["passages_held"])

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A lost connection lets another replica in beside this one, which costs work and nothing else."""
        try:
            connection = await self._database.connect()
            try:
                await connection.execute(_ALONE)
                yield
            finally:
                connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            message = "The record can't be reached just now. Retry with the same request."
            raise Unavailable(Reason.RECORD_UNAVAILABLE, message) from error

    async def missing(self, index_id: int, after: UUID | None, limit: int) -> Sequence[Document]:
        rows = await self._database.all("missing_documents", index_id, after, limit)
        return [document_of(row) for row in rows]

    async def passages(self, document: Document, first: int, limit: int) -> Sequence[Passage]:
        rows = await self._database.all("passages_of_document", document.tenant_id, document.id, first, limit)
        return [passage_of(row) for row in rows]

    async def replace_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        rows = passage_rows(document, passages)
        content = (document.content_type, document.progress.pages, len(rows))
        changed = await self._database.one("replace_passages", document.tenant_id, document.id, *content, rows)
        return changed is not None

    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        row = await self._database.one("find_document", tenant_id, document_id)
        return document_of(row) if row else None

    async def hold(self, document: Document, index_id: int) -> bool:
        return await self._database.one("hold_document", document.tenant_id, document.id, index_id) is not None

    async def holds_nothing(self, index_id: int) -> None:
        await self._database.one("forget_holding", index_id)

    async def switch(self, index_id: int) -> bool:
        row = await self._database.one("switch_index", index_id)
        return bool(row and row["switched"])

    async def retired(self, age_s: float) -> Sequence[int]:
        return [row["id"] for row in await self._database.all("retired_indexes", age_s)]

    async def forget(self, index_id: int) -> None:
        await self._database.one("forget_index", index_id)

    async def orphans(self, rows: Sequence[Row]) -> Sequence[Row]:
        ids = (
            [each.passage_id for each in rows],
            [each.tenant_id for each in rows],
            [each.document_id for each in rows],
        )
        orphaned = {row["id"] for row in await self._database.all("orphaned_rows", *ids)}
        return [each for each in rows if each.passage_id in orphaned]

    async def unknown(self, objects: Sequence[Stored]) -> Sequence[Stored]:
        owners = [[each.owner_id for each in objects if each.is_chunk is is_chunk] for is_chunk in (False, True)]
        known = {(row["id"], row["is_chunk"]) for row in await self._database.all("owners", *owners)}
        return [each for each in objects if (each.owner_id, each.is_chunk) not in known]

    async def drop_stray_passages(self) -> int:
        row = await self._database.one("drop_stray_passages")
        return row["passages"] if row else 0

    async def held_by(self, index_id: int, after: UUID | None, limit: int) -> Sequence[Document]:
        rows = await self._database.all("documents_held", index_id, after, limit)
        return [document_of(row) for row in rows]

    async def recount(self) -> int:
        corrected = 0
        for row in await self._database.all("tenants"):
            counted = await self._database.one("recount_usage", row["tenant_id"])
            corrected += bool(counted and counted["corrected"])
        return corrected


def _version(row: asyncpg.Record) -> IndexVersion:
    model = (row["embedding_model"], row["dimensions"])
    return IndexVersion(row["id"], IndexState(row["state"]), *model, row["from_originals"])
