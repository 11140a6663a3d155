"""A document: a file of an organisation, and where it stands on its way into the index.

All members of the organisation see its documents; who uploaded one, and admins and owners, may delete it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from services.shared.errors import Forbidden, NotFound, Reason

MAX_FAILURE_CHARACTERS = 300
_MAY_DELETE_ANY = ("owner", "admin")


class DocumentState(StrEnum):
    """QUEUED -> INDEXING -> INDEXED or FAILED."""

    QUEUED = "queued"
    INDEXING = "indexing"
    INDEXED = "indexed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (DocumentState.INDEXED, DocumentState.FAILED)


@dataclass(frozen=True)
class Failure:
    """Why a document can't be indexed; the message says what to do, in at most MAX_FAILURE_CHARACTERS."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Progress:
    """How far indexing is; see IndexingProgress of the contract."""

    pages: int = 0
    passages: int = 0
    passages_indexed: int = 0


@dataclass(frozen=True)
class File:
    """What a client says of a file before its bytes. `sha256` is 64 lower-case hex digits."""

    request_id: UUID
    filename: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """A stored file. `content_type` is empty until indexing has looked at the content."""

    id: UUID
    tenant_id: UUID
    user_id: UUID
    file: File
    content_type: str = ""
    state: DocumentState = DocumentState.QUEUED
    progress: Progress = Progress()
    failure: Failure | None = None
    create_time: datetime


@dataclass(frozen=True)
class Member:
    """Who asks, with the role in the organisation."""

    tenant_id: UUID
    user_id: UUID
    role: str


class Documents(Protocol):
    """The record of the documents."""

    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None: ...

    async def newest(self, tenant_id: UUID, before: tuple[datetime, UUID] | None, limit: int) -> Sequence[Document]:
        """Newest first; `before` is the creation time and id of a document that they must be older than."""

    async def delete(self, document: Document) -> bool:
        """Remove the document with its passages and say so to the world; False if it was gone already."""


async def get(documents: Documents, tenant_id: UUID, document_id: UUID) -> Document:
    """The organisation's document. Raises NotFound."""
    if (document := await documents.find(tenant_id, document_id)) is None:
        raise not_found()
    return document


async def delete(documents: Documents, member: Member, document_id: UUID) -> None:
    """Delete a document for `member`. Raises NotFound, and Forbidden for one that is not this member's to delete."""
    document = await get(documents, member.tenant_id, document_id)
    if document.user_id != member.user_id and member.role not in _MAY_DELETE_ANY:
        raise Forbidden(Reason.DOCUMENT_NOT_YOURS, "Ask the document's uploader or an admin to delete it.")
    if not await documents.delete(document):
        raise not_found()


def not_found() -> NotFound:
    return NotFound(Reason.DOCUMENT_NOT_FOUND, "There is no such document in your organisation.")
