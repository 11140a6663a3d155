"""Documents, passages and uploads in PostgreSQL; each change with its event in one statement."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

import asyncpg

from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.knowledge.v1.knowledge_events_pb2 import (
    DocumentDeleted,
    DocumentFailed,
    DocumentIndexed,
    DocumentUpdated,
    DocumentUploaded,
)
from services.knowledge.document import (
    Change,
    Collection,
    Document,
    DocumentState,
    Failure,
    File,
    Member,
    Progress,
    Visibility,
)
from services.knowledge.indexing import Extracted
from services.knowledge.passages import Passage, passage_id
from services.knowledge.search import FoundPassage
from services.knowledge.upload import Duplicate, Full, Quota, Upload
from services.shared.errors import Reason
from services.shared.postgres.database import Database


class StoredDocuments:
    """Implements document.Documents, indexing.IndexedDocuments and search.Passages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        row = await self._database.one("find_document", tenant_id, document_id)
        return _document(row) if row else None

    async def find_visible(self, member: Member, document_id: UUID) -> Document | None:
        row = await self._database.one("find_visible_document", member.tenant_id, member.user_id, document_id)
        return _document(row) if row else None

    async def newest(
        self, member: Member, before: tuple[datetime, UUID] | None, limit: int, collection: str | None = None
    ) -> Sequence[Document]:
        values = (member.tenant_id, member.user_id, *(before or (None, None)), limit, collection)
        return [_document(row) for row in await self._database.all("newest_documents", *values)]

    async def collections(self, member: Member, after: str | None, limit: int) -> Sequence[Collection]:
        rows = await self._database.all("collections", member.tenant_id, member.user_id, after, limit)
        return [Collection(row["name"], row["documents"]) for row in rows]

    async def update(self, member: Member, document_id: UUID, change: Change) -> Document | None:
        mine = (member.tenant_id, member.user_id, document_id)
        event = DocumentUpdated(tenant_id=str(mine[0]), user_id=str(mine[1]), document_id=str(mine[2]))
        row = await self._database.one(
            "update_document", *mine, change.collection, change.visibility, event.SerializeToString()
        )
        return _document(row) if row else None

    async def delete(self, member: Member, document: Document) -> bool:
        event = DocumentDeleted(**_ids(document)).SerializeToString()
        deleted = await self._database.one("delete_document", member.tenant_id, member.user_id, document.id, event)
        return deleted is not None

    async def begin_indexing(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        row = await self._database.one("begin_indexing", tenant_id, document_id)
        return _document(row) if row else None

    async def announce(self, document: Document, extracted: Extracted) -> None:
        await self._changed(
            "announce_content", document, extracted.content_type, extracted.pages, extracted.passage_count
        )

    async def add_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        rows = [{"id": str(passage_id(document.id, passage.position)), **asdict(passage)} for passage in passages]
        return await self._changed("add_passages", document, rows)

    async def complete(self, document: Document, passage_count: int) -> bool:
        named = {"filename": document.file.filename, "source_url": document.file.source_url}
        event = DocumentIndexed(**_ids(document), **named, passages=passage_count)
        return await self._changed("complete_indexing", document, event.SerializeToString())

    async def fail(self, document: Document, failure: Failure) -> bool:
        event = DocumentFailed(
            **_ids(document),
            filename=document.file.filename,
            source_url=document.file.source_url,
            reason=ErrorReason.Value(f"ERROR_REASON_{failure.reason}"),
            message=failure.message,
        )
        return await self._changed(
            "fail_indexing", document, failure.reason, failure.message, event.SerializeToString()
        )

    async def searchable(
        self, tenant_id: UUID, passage_ids: Sequence[UUID], limit: int, user_id: UUID | None = None
    ) -> Sequence[FoundPassage]:
        """Those of private documents only for their uploader `user_id`."""
        rows = await self._database.all("searchable_passages", tenant_id, passage_ids, limit, user_id)
        return [_found_passage(row) for row in rows]

    async def sample(self, tenant_id: UUID, limit: int) -> Sequence[Passage]:
        return [_passage(row) for row in await self._database.all("sample_passages", tenant_id, limit)]

    async def _changed(self, query: str, document: Document, *values: object) -> bool:
        return await self._database.one(query, document.tenant_id, document.id, *values) is not None


class StoredUploads:
    """Implements upload.Uploads and sweep.OldUploads, within the quota of each organisation."""

    def __init__(self, database: Database, quota: Quota) -> None:
        self._database = database
        self._quota = quota

    async def expect(self, member: Member, file: File) -> Document | Duplicate | Full | None:
        request = (member.tenant_id, member.user_id, file.request_id, file.sha256, file.allow_duplicate)
        row = await self._database.one("expect_document", *request, file.size_bytes, *self._limits)
        assert row
        if row["id"]:
            return _document(row) if row["is_first"] else Duplicate(row["id"])
        return Full(self._quota) if row["is_full"] else None

    async def find_uploaded(self, member: Member, document_id: UUID) -> Document | None:
        row = await self._database.one("find_uploaded_document", member.tenant_id, member.user_id, document_id)
        return _document(row) if row else None

    async def add_document(self, member: Member, document_id: UUID, file: File) -> Document | Duplicate | Full:
        event = DocumentUploaded(
            tenant_id=str(member.tenant_id),
            user_id=str(member.user_id),
            document_id=str(document_id),
            filename=file.filename,
        )
        values = (*_announced(member, document_id, file), *self._limits, event.SerializeToString(), file.source_url)
        if (row := await self._second_sees_first("add_document", *values)) is None:
            return Full(self._quota)
        return _document(row) if row["is_first"] else Duplicate(row["id"])

    async def begin(self, member: Member, upload_id: UUID, file: File) -> Upload | Duplicate | Full:
        values = (*_announced(member, upload_id, file), *self._limits)
        if (row := await self._second_sees_first("begin_upload", *values)) is None:
            return Full(self._quota)
        return _upload(row) if row["is_first"] else Duplicate(row["id"])

    async def find_upload(self, member: Member, upload_id: UUID) -> Upload | None:
        row = await self._database.one("find_upload", member.tenant_id, member.user_id, upload_id)
        return _upload(row) if row else None

    async def advance(self, member: Member, upload: Upload, chunk_bytes: int) -> bool:
        owner = (member.tenant_id, member.user_id)
        row = await self._database.one("advance_upload", *owner, upload.id, upload.received_bytes, chunk_bytes)
        return row is not None

    async def drop(self, member: Member, upload_id: UUID) -> None:
        await self._database.one("drop_upload", member.tenant_id, member.user_id, upload_id)

    async def drop_older_than(self, age_s: float) -> None:
        """End the unfinished uploads of all organisations that began longer ago."""
        await self._database.all("drop_uploads_older_than", age_s)

    @property
    def _limits(self) -> tuple[int, int]:
        return self._quota.documents, self._quota.size_bytes

    async def _second_sees_first(self, query: str, *values: object) -> asyncpg.Record | None:
        """The statement's row, asked for twice when the same came at once: then the other one is visible, which may
        also have taken the last place."""
        try:
            if row := await self._database.one(query, *values):
                return row
        except asyncpg.UniqueViolationError:
            pass
        return await self._database.one(query, *values)


def _ids(document: Document) -> dict[str, str]:
    return {
        "tenant_id": str(document.tenant_id),
        "user_id": str(document.user_id),
        "document_id": str(document.id),
    }


def _announced(member: Member, new_id: UUID, file: File) -> tuple[object, ...]:
    announced = (file.filename, file.size_bytes, file.sha256, file.collection, file.visibility, file.allow_duplicate)
    return (member.tenant_id, member.user_id, file.request_id, new_id, *announced)


def _file(row: asyncpg.Record) -> File:
    return File(
        request_id=row["request_id"],
        filename=row["filename"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        collection=row["collection"],
        visibility=Visibility(row["visibility"]),
        allow_duplicate=row.get("allow_duplicate", False),
        source_url=row.get("source_url", ""),
    )


def _document(row: asyncpg.Record) -> Document:
    reason = row["failure_reason"]
    return Document(
        id=row["id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        file=_file(row),
        content_type=row["content_type"],
        state=DocumentState(row["state"]),
        progress=Progress(row["pages"], row["passages"], row["passages_indexed"]),
        failure=Failure(Reason(reason), row["failure_message"]) if reason else None,
        create_time=row["create_time"],
    )


def _upload(row: asyncpg.Record) -> Upload:
    return Upload(row["id"], _file(row), row["received_bytes"], row["finished"])


def _found_passage(row: asyncpg.Record) -> FoundPassage:
    return FoundPassage(row["id"], row["document_id"], row["filename"], _passage(row))


def _passage(row: asyncpg.Record) -> Passage:
    return Passage(row["position"], row["text"], row["page"], tuple(row["headings"]))
