"""Receiving a file, in one stream or in chunks.

Nothing is stored before all bytes have arrived and their size and SHA-256 are as announced: until then they lie in a
temporary file (in memory while small). A document exists from its row on; the row is written last. Chunks of an
unfinished upload are objects of their own, so that any replica can take the next one.

The id of an upload is the id of the document that it becomes. That makes ending an upload repeatable: whoever missed
the answer asks again and gets the document.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO, Protocol, TypeVar
from uuid import UUID, uuid4

from services.knowledge.document import Document, File, Member
from services.shared.errors import AlreadyExists, Exhausted, Invalid, NotFound, Reason, Unavailable, WrongState

MAX_BYTES = 32 * 1024 * 1024
UPLOAD_LIVES_S = 24 * 3600
_IN_MEMORY_BYTES = 1024 * 1024
Taken = TypeVar("Taken", "Document", "Upload")


@dataclass(frozen=True)
class Upload:
    """An upload in chunks. `finished` once it has become a document."""

    id: UUID
    file: File
    received_bytes: int
    finished: bool = False


@dataclass(frozen=True)
class Quota:
    """What one organisation may have, documents and unfinished uploads together."""

    documents: int = 100_000
    size_bytes: int = 100 * 2**30


@dataclass(frozen=True)
class Duplicate:
    """The member sees a document of the same content, and did not ask for another one."""

    document_id: UUID


@dataclass(frozen=True)
class Full:
    """The organisation has no place left for the file."""

    quota: Quota


class Uploads(Protocol):
    """The record of documents and unfinished uploads, as far as uploads change it."""

    async def expect(self, member: Member, file: File) -> Document | Duplicate | Full | None:
        """What `add_document` would meet now: the document that the request_id stands for already, or what is in the
        way."""

    async def add_document(self, member: Member, document_id: UUID, file: File) -> Document | Duplicate | Full:
        """Write the document, end the upload of the same id, and say so to the world; the document that the id or the
        request_id stands for already is returned instead."""

    async def find_uploaded(self, member: Member, document_id: UUID) -> Document | None:
        """The member's document."""

    async def begin(self, member: Member, upload_id: UUID, file: File) -> Upload | Duplicate | Full:
        """A new upload, or what the request_id stands for already."""

    async def find_upload(self, member: Member, upload_id: UUID) -> Upload | None: ...

    async def advance(self, member: Member, upload: Upload, chunk_bytes: int) -> bool:
        """Count a chunk that is stored at `upload.received_bytes`; False if the upload stands elsewhere by now."""

    async def drop(self, member: Member, upload_id: UUID) -> None: ...


class Originals(Protocol):
    """The store of originals and chunks. Every method raises Unavailable."""

    async def put(self, tenant_id: UUID, document_id: UUID, content: IO[bytes]) -> None: ...

    async def delete(self, tenant_id: UUID, document_id: UUID) -> None: ...

    async def put_chunk(self, tenant_id: UUID, upload_id: UUID, offset_bytes: int, chunk: bytes) -> None: ...

    def chunks(self, tenant_id: UUID, upload_id: UUID, size_bytes: int) -> AsyncIterator[bytes]:
        """The bytes of the chunks, in order, up to `size_bytes` or the first gap."""

    async def delete_chunks(self, tenant_id: UUID, upload_id: UUID) -> None: ...


class Reception:
    """Takes files in."""

    def __init__(self, uploads: Uploads, originals: Originals) -> None:
        self._uploads = uploads
        self._originals = originals

    async def receive(self, member: Member, file: File, chunks: AsyncIterator[bytes]) -> Document:
        """Store a file that comes in one stream. Raises Invalid, WrongState, AlreadyExists, Exhausted, Unavailable."""
        _check_size(file)
        if known := await self._uploads.expect(member, file):
            return _same(_taken(known), file)
        return _same(await self._store(member, uuid4(), file, chunks), file)

    async def begin(self, member: Member, file: File) -> Upload:
        """Begin an upload in chunks, or find the one begun by the same request. Raises Invalid, AlreadyExists,
        Exhausted."""
        _check_size(file)
        upload = _taken(await self._uploads.begin(member, uuid4(), file))
        if not file.is_repeat_of(upload.file):
            raise _reused()
        return upload

    async def append(self, member: Member, upload_id: UUID, offset_bytes: int, chunk: bytes) -> int:
        """Store a chunk; the bytes that have arrived then. Raises NotFound, WrongState, Invalid, Unavailable."""
        upload = await self._get_upload(member, upload_id)
        end_bytes = offset_bytes + len(chunk)
        if end_bytes <= upload.received_bytes:
            return upload.received_bytes
        if offset_bytes != upload.received_bytes:
            raise _elsewhere(upload)
        if end_bytes > upload.file.size_bytes:
            message = "The chunk goes beyond the announced size: send what is left, or begin a new upload."
            raise Invalid(Reason.DOCUMENT_TOO_LARGE, message, limit_bytes=upload.file.size_bytes)
        await self._originals.put_chunk(member.tenant_id, upload_id, offset_bytes, chunk)
        if not await self._uploads.advance(member, upload, len(chunk)):
            # Another call was first: perhaps with this very chunk, sent twice by a network that stalled.
            return await self.append(member, upload_id, offset_bytes, chunk)
        return end_bytes

    async def finish(self, member: Member, upload_id: UUID) -> Document:
        """Make the document of an upload. Raises NotFound, WrongState, Invalid, AlreadyExists, Exhausted,
        Unavailable."""
        if document := await self._uploads.find_uploaded(member, upload_id):
            return document
        upload = await self._get_upload(member, upload_id)
        if upload.received_bytes < upload.file.size_bytes:
            raise _incomplete(upload.file, upload.received_bytes)
        chunks = self._originals.chunks(member.tenant_id, upload_id, upload.file.size_bytes)
        try:
            document = await self._store(member, upload_id, upload.file, chunks)
        except (Invalid, WrongState, AlreadyExists):  # these bytes will never be the file, or are it already
            if document := await self._uploads.find_uploaded(member, upload_id):
                return document  # a second FinishUpload at the same time was first, and took the chunks away
            await self._uploads.drop(member, upload_id)
            await self._delete_chunks(member, upload_id)
            raise
        await self._delete_chunks(member, upload_id)
        return document

    async def _delete_chunks(self, member: Member, upload_id: UUID) -> None:
        with suppress(Unavailable):  # the sweep takes what is left
            await self._originals.delete_chunks(member.tenant_id, upload_id)

    async def _store(self, member: Member, document_id: UUID, file: File, chunks: AsyncIterator[bytes]) -> Document:
        async with _verified(file, chunks) as content:
            await self._originals.put(member.tenant_id, document_id, content)
        added = await self._uploads.add_document(member, document_id, file)
        if not isinstance(added, Document) or added.id != document_id:  # another one was first, perhaps of this request
            await self._originals.delete(member.tenant_id, document_id)
        return _taken(added)

    async def _get_upload(self, member: Member, upload_id: UUID) -> Upload:
        upload = await self._uploads.find_upload(member, upload_id)
        if upload is None:
            message = "There is no such upload of yours: begin a new one."
            raise NotFound(Reason.UPLOAD_NOT_FOUND, message)
        return upload


@asynccontextmanager
async def _verified(file: File, chunks: AsyncIterator[bytes]) -> AsyncIterator[IO[bytes]]:
    """All bytes of `file`, ready to be read. Raises WrongState or Invalid if they are not what was announced."""
    digest, received_bytes = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as content:
        async for chunk in chunks:
            received_bytes += len(chunk)
            if received_bytes > file.size_bytes:
                raise _incomplete(file, received_bytes)
            digest.update(chunk)
            await asyncio.to_thread(content.write, chunk)
        if received_bytes < file.size_bytes:
            raise _incomplete(file, received_bytes)
        if digest.hexdigest() != file.sha256:
            message = "The bytes that arrived are not those of the announced SHA-256: upload the file again."
            raise Invalid(Reason.CHECKSUM_MISMATCH, message, sha256=digest.hexdigest())
        content.seek(0)
        yield content


def _check_size(file: File) -> None:
    if file.size_bytes == 0:
        raise Invalid(Reason.DOCUMENT_EMPTY, "The file holds no byte: choose another one.")
    if file.size_bytes > MAX_BYTES:
        message = f"A file may have {MAX_BYTES // 2**20} MiB: split it, or make it smaller."
        raise Invalid(Reason.DOCUMENT_TOO_LARGE, message, limit_bytes=MAX_BYTES)


def _same(document: Document, file: File) -> Document:
    if not file.is_repeat_of(document.file):
        raise _reused()
    return document


def _taken(answer: Taken | Duplicate | Full) -> Taken:
    if isinstance(answer, Duplicate):
        message = "This file is there already: use that document, or allow a duplicate."
        raise AlreadyExists(Reason.DOCUMENT_DUPLICATE, message, document_id=answer.document_id)
    if isinstance(answer, Full):
        quota = answer.quota
        message = f"An organisation may have {quota.documents:,} documents and {quota.size_bytes:,} bytes: delete some."
        reason = Reason.KNOWLEDGE_FULL
        raise Exhausted(reason, message, limit_documents=quota.documents, limit_bytes=quota.size_bytes)
    return answer


def _reused() -> AlreadyExists:
    message = "This request_id was used for another file: make a new one for each file."
    return AlreadyExists(Reason.REQUEST_ID_REUSED, message)


def _incomplete(file: File, received_bytes: int) -> WrongState:
    message = "Fewer or more bytes arrived than announced: upload the file again."
    announced_bytes = file.size_bytes
    return WrongState(Reason.UPLOAD_INCOMPLETE, message, announced_bytes=announced_bytes, received_bytes=received_bytes)


def _elsewhere(upload: Upload) -> WrongState:
    message = "The chunk does not begin where the upload stands: go on at received_bytes."
    return WrongState(Reason.UPLOAD_OFFSET_MISMATCH, message, received_bytes=upload.received_bytes)
