"""Files into an organisation of a running mesh, as `parley ingest` does it: a few uploads at a time, more followed."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import grpc

from parley.knowledge.v1.document_pb2 import (
    DOCUMENT_STATE_FAILED,
    DOCUMENT_STATE_INDEXED,
    DOCUMENT_STATE_INDEXING,
    Document,
)
from parley.knowledge.v1.knowledge_service_pb2 import UploadDocumentRequest, UploadedFile, WatchDocumentRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub

_FOLLOWED_AT_ONCE, _UPLOADS_AT_ONCE = 16, 4
_CHUNK_BYTES = 256 * 1024
Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Ingested:
    """What became of one file: its document, or how the upload was refused."""

    name: str
    document: Document | None
    refusal: str
    work_s: float
    """From the first sign of indexing to the end."""

    @property
    def passages(self) -> int:
        return self.document.progress.passages if self.document and self.is_indexed else 0

    @property
    def is_indexed(self) -> bool:
        return self.document is not None and self.document.state == DOCUMENT_STATE_INDEXED


async def ingest(edge: grpc.aio.Channel, metadata: Metadata, files: Mapping[str, bytes]) -> Sequence[Ingested]:
    """Upload all of them and wait until each is indexed or failed."""
    knowledge, uploading = KnowledgeServiceStub(edge), asyncio.Semaphore(_UPLOADS_AT_ONCE)
    waiting, done = iter(files.items()), list[Ingested]()

    async def work() -> None:
        for name, content in waiting:
            try:
                async with uploading:
                    uploaded = await knowledge.UploadDocument(_parts(name, content), metadata=metadata)
                done.append(await _followed(knowledge, metadata, name, uploaded.document))
            except grpc.aio.AioRpcError as error:
                done.append(Ingested(name, None, f"{error.code().name}: {error.details()}", 0.0))

    await asyncio.gather(*(work() for _ in range(_FOLLOWED_AT_ONCE)))
    return done


async def _followed(knowledge: KnowledgeServiceStub, metadata: Metadata, name: str, document: Document) -> Ingested:
    request, began_s = WatchDocumentRequest(document_id=document.id), 0.0
    async for answer in knowledge.WatchDocument(request, metadata=metadata):
        document = answer.document
        if document.state == DOCUMENT_STATE_INDEXING and not began_s:
            began_s = time.monotonic()
        if document.state in (DOCUMENT_STATE_INDEXED, DOCUMENT_STATE_FAILED):
            break
    return Ingested(name, document, "", time.monotonic() - began_s if began_s else 0.0)


async def _parts(name: str, content: bytes) -> AsyncIterator[UploadDocumentRequest]:
    said = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "allow_duplicate": True}
    yield UploadDocumentRequest(file=UploadedFile(request_id=str(uuid.uuid4()), filename=name, **said))
    for begin in range(0, len(content), _CHUNK_BYTES):
        yield UploadDocumentRequest(chunk=content[begin : begin + _CHUNK_BYTES])
