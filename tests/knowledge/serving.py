"""The service on fakes behind a real server, and what its client sends."""

import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from parley.knowledge.v1.document_pb2 import Document
from parley.knowledge.v1.knowledge_events_pb2 import DocumentUploaded
from parley.knowledge.v1.knowledge_service_pb2 import (
    UploadDocumentRequest,
    UploadedFile,
)
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from services.knowledge.handlers import DocumentEvents
from services.shared.events.consumer import Event
from tests.conftest import Signer
from tests.knowledge.fakes import (
    FakeEmbedding,
    FakeIndex,
    FakeOriginals,
    FakeRecord,
)

CONTENT = b"cats sleep all day\ndogs bark at night"


TENANT, USER = uuid4(), uuid4()


@dataclass
class Served:
    """The service on fakes, and its client."""

    stub: KnowledgeServiceStub
    record: FakeRecord
    originals: FakeOriginals
    index: FakeIndex
    embedding: FakeEmbedding
    events: DocumentEvents
    signer: Signer

    def me(self, **claims: object) -> dict[str, object]:
        return {"metadata": self.signer.metadata(**{"tenant": TENANT, "user": USER} | claims), "timeout": 10}

    async def upload(
        self, content: bytes = CONTENT, me: dict[str, object] | None = None, **changed: object
    ) -> Document:
        parts = [announced(content, **changed), *chunks_of(content)]
        return (await self.stub.UploadDocument(stream(parts), **me or self.me())).document

    async def work_off(self, document: Document) -> None:
        """Do what the consumer of DocumentUploaded does."""
        payload = DocumentUploaded(document_id=document.id).SerializeToString()
        event_type = "parley.knowledge.v1.DocumentUploaded"
        event = Event(id=uuid4(), type=event_type, tenant_id=TENANT, time=datetime.now(UTC), payload=payload)
        await self.events.index(event)


def a_description(content: bytes = CONTENT, **changed: object) -> UploadedFile:
    said = {
        "request_id": str(uuid4()),
        "filename": "notes.txt",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return UploadedFile(**said | changed)


def announced(content: bytes = CONTENT, **changed: object) -> UploadDocumentRequest:
    return UploadDocumentRequest(file=a_description(content, **changed))


def chunks_of(content: bytes) -> list[UploadDocumentRequest]:
    return [UploadDocumentRequest(chunk=content[begin : begin + 10]) for begin in range(0, len(content), 10)]


async def stream(parts: Iterable[UploadDocumentRequest]) -> AsyncIterator[UploadDocumentRequest]:
    for part in parts:
        yield part
