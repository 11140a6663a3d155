"""A document: a file of an organisation, and where it stands on its way into the index.

All members of the organisation see its documents, but a private one is its uploader's alone: for everybody else, admins
too, it does not exist. Its uploader may change it; its uploader, and admins and owners who see it, may delete it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
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


class Visibility(StrEnum):
    """Who sees a document: its uploader, or every member of the organisation."""

    PRIVATE = "private"
    ORGANISATION = "organisation"


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
    collection: str = ""
    visibility: Visibility = Visibility.ORGANISATION
    allow_duplicate: bool = field(default=False, compare=False)
    source_url: str = field(default="", compare=False)
    """Where it was fetched from; empty for an upload."""

    def is_repeat_of(self, first: "File") -> bool:
        """Whether a request says the same as the first one; its document may have been shared or moved meanwhile."""
        mine, its = ((file.request_id, file.filename, file.size_bytes, file.sha256) for file in (self, first))
        return mine == its


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


@dataclass(frozen=True)
class Collection:
    """Documents that belong together, as many as a member sees."""

    name: str
    documents: int


@dataclass(frozen=True)
class Change:
    """What is to change of a document; None leaves it as it is."""

    collection: str | None = None
    visibility: Visibility | None = None


class Documents(Protocol):
    """The record of the documents, as one member sees it."""

    async def find_visible(self, member: Member, document_id: UUID) -> Document | None: ...

    async def newest(
        self, member: Member, before: tuple[datetime, UUID] | None, limit: int, collection: str | None = None
    ) -> Sequence[Document]:
        """Newest first; `before` is the creation time and id of a document that they must be older than."""

    async def collections(self, member: Member, after: str | None, limit: int) -> Sequence[Collection]:
        """By name, in the order of the code points, those after `after`."""

    async def update(self, member: Member, document_id: UUID, change: Change) -> Document | None:
        """Change a document that this member uploaded and say so to the world; None if there is none."""

    async def delete(self, member: Member, document: Document) -> bool:
        """Remove the document with its passages and say so to the world; False if the member sees it no more."""


async def get(documents: Documents, member: Member, document_id: UUID) -> Document:
    """The document, if `member` sees it. Raises NotFound."""
    if (document := await documents.find_visible(member, document_id)) is None:
        raise not_found()
    return document


async def update(documents: Documents, member: Member, document_id: UUID, change: Change) -> Document:
    """Change a document of `member`. Raises NotFound, and Forbidden for one that somebody else uploaded."""
    if document := await documents.update(member, document_id, change):
        return document
    await get(documents, member, document_id)
    raise Forbidden(Reason.DOCUMENT_NOT_YOURS, "Ask the document's uploader to change it.")


async def delete(documents: Documents, member: Member, document_id: UUID) -> None:
    """Delete a document for `member`. Raises NotFound, and Forbidden for one that is not this member's to delete."""
    document = await get(documents, member, document_id)
    if document.user_id != member.user_id and member.role not in _MAY_DELETE_ANY:
        raise Forbidden(Reason.DOCUMENT_NOT_YOURS, "Ask the document's uploader or an admin to delete it.")
    if not await documents.delete(member, document):
        raise not_found()


def not_found() -> NotFound:
    return NotFound(Reason.DOCUMENT_NOT_FOUND, "There is no such document among those that you see.")
