"""One file on its way into the mesh.

Every attempt says the same request_id, and so the mesh knows what it has: of a small file all or nothing, of a larger
one the bytes up to an offset, where the next attempt goes on.
"""

import asyncio
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from grpclib.exceptions import GRPCError

from parley_sdk.parley.knowledge.v1 import (
    AppendUploadRequest,
    CreateUploadRequest,
    FinishUploadRequest,
    KnowledgeServiceStub,
    UploadDocumentRequest,
    UploadedFile,
    Visibility,
)
from stack.client.edge import CALL_TIMEOUT_S, fact_of, reason_of
from stack.client.lasting import Lasting

CHUNK_BYTES = 512 * 1024
_AT_ONCE_BYTES = 1024 * 1024
"""A file up to here goes in one call."""
_SENDING_TIMEOUT_S = 30.0


class Unread(Exception):
    """A file can't be read, or not as it was; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where the documents go."""

    collection: str = ""
    is_private: bool = False


@dataclass(frozen=True)
class Uploaded:
    """The document of a file. Not new if there was one of the same content."""

    document_id: str
    is_new: bool


async def upload(mesh: Lasting, path: Path, place: Place, sent: Callable[[int], None]) -> Uploaded:
    """Upload a file; `sent` hears how many bytes have arrived. Raises Unread, and what refused it."""
    with _reading():
        file = path.open("rb")
    with file:
        with _reading():
            size_bytes, digest = await asyncio.to_thread(_digest, file)
        described = UploadedFile(
            request_id=str(uuid.uuid4()),
            filename=os.fsencode(path.name).decode(errors="replace"),
            size_bytes=size_bytes,
            sha256=digest,
            collection=place.collection,
            visibility=Visibility.PRIVATE if place.is_private else Visibility.ORGANISATION,
        )
        sending = _Sending(file, described, sent)
        try:
            return Uploaded(await mesh.call(sending.attempt, lambda: sending.arrived_bytes), is_new=True)
        except GRPCError as error:
            if reason_of(error) != "DOCUMENT_DUPLICATE":
                raise
            return Uploaded(fact_of(error, "document_id"), is_new=False)


class _Sending:
    """The bytes of one file; an attempt goes on where the one before it stopped."""

    def __init__(self, file: BufferedReader, described: UploadedFile, sent: Callable[[int], None]) -> None:
        self._file, self._described, self._sent = file, described, sent
        self.arrived_bytes = 0

    async def attempt(self, knowledge: KnowledgeServiceStub) -> str:
        """The id of the document that the file became."""
        if self._described.size_bytes <= _AT_ONCE_BYTES:
            return await self._at_once(knowledge)
        return await self._in_chunks(knowledge)

    async def _at_once(self, knowledge: KnowledgeServiceStub) -> str:
        parts = [UploadDocumentRequest(file=self._described)]
        if self._described.size_bytes:
            parts.append(UploadDocumentRequest(chunk=self._chunk(0, _AT_ONCE_BYTES)))
        uploaded = await knowledge.upload_document(parts, timeout=_SENDING_TIMEOUT_S)
        assert uploaded.document
        self._arrived(self._described.size_bytes)
        return uploaded.document.id

    async def _in_chunks(self, knowledge: KnowledgeServiceStub) -> str:
        begun = await knowledge.create_upload(CreateUploadRequest(file=self._described), timeout=CALL_TIMEOUT_S)
        self._arrived(begun.received_bytes)
        while (offset_bytes := self.arrived_bytes) < self._described.size_bytes:
            chunk = self._chunk(offset_bytes, CHUNK_BYTES)
            request = AppendUploadRequest(upload_id=begun.upload_id, offset_bytes=offset_bytes, chunk=chunk)
            self._arrived((await knowledge.append_upload(request, timeout=_SENDING_TIMEOUT_S)).received_bytes)
        request_to_end = FinishUploadRequest(upload_id=begun.upload_id)
        finished = await knowledge.finish_upload(request_to_end, timeout=_SENDING_TIMEOUT_S)
        assert finished.document
        return finished.document.id

    def _chunk(self, offset_bytes: int, most_bytes: int) -> bytes:
        wanted = min(most_bytes, self._described.size_bytes - offset_bytes)
        with _reading():
            chunk = os.pread(self._file.fileno(), wanted, offset_bytes)
        if len(chunk) < wanted:
            raise Unread("It changed while it was read.")
        return chunk

    def _arrived(self, received_bytes: int) -> None:
        self.arrived_bytes = received_bytes
        self._sent(received_bytes)


def _digest(file: BufferedReader) -> tuple[int, str]:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return file.tell(), digest


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unread(f"It can't be read: {error.strerror}.") from error
