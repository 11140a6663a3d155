"""The RPCs, over a real server with the generated client."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import grpc
import pytest

from parley.errors.v1.error_reason_pb2 import ERROR_REASON_DOCUMENT_CORRUPT
from parley.knowledge.v1.document_pb2 import (
    DOCUMENT_STATE_FAILED,
    DOCUMENT_STATE_INDEXED,
    DOCUMENT_STATE_INDEXING,
    DOCUMENT_STATE_QUEUED,
    Document,
)
from parley.knowledge.v1.knowledge_events_pb2 import DocumentUploaded
from parley.knowledge.v1.knowledge_service_pb2 import (
    AppendUploadRequest,
    CreateUploadRequest,
    DeleteDocumentRequest,
    FinishUploadRequest,
    GetDocumentRequest,
    ListDocumentsRequest,
    SearchRequest,
    UploadDocumentRequest,
    UploadedFile,
    WatchDocumentRequest,
)
from parley.knowledge.v1.knowledge_service_pb2_grpc import (
    KnowledgeServiceStub,
    add_KnowledgeServiceServicer_to_server,
)
from services.knowledge.handlers import DocumentEvents, KnowledgeService
from services.knowledge.indexing import Indexing
from services.knowledge.search import Search
from services.knowledge.upload import MAX_BYTES, Reception
from services.knowledge.watch import Watch
from services.shared.errors import Reason, Refusal
from services.shared.events.consumer import Event
from services.shared.pages import page_token
from services.shared.serving.status import refusal_in
from tests.conftest import ServeLocally, Signer
from tests.knowledge.fakes import (
    FakeChanges,
    FakeEmbedding,
    FakeExtraction,
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

    async def upload(self, content: bytes = CONTENT, **changed: object) -> Document:
        parts = [announced(content, **changed), *chunks_of(content)]
        return (await self.stub.UploadDocument(stream(parts), **self.me())).document

    async def work_off(self, document: Document) -> None:
        """Do what the consumer of DocumentUploaded does."""
        payload = DocumentUploaded(document_id=document.id).SerializeToString()
        event_type = "parley.knowledge.v1.DocumentUploaded"
        event = Event(id=uuid4(), type=event_type, tenant_id=TENANT, time=datetime.now(UTC), payload=payload)
        await self.events.index(event)


@pytest.fixture
async def served(serve_locally: ServeLocally, signer: Signer) -> AsyncIterator[Served]:
    changes = FakeChanges()
    record, originals, index, embedding = FakeRecord(changes), FakeOriginals(), FakeIndex(), FakeEmbedding()
    search, watch = Search(embedding, index, record), Watch(record, changes)
    handler = KnowledgeService(record, Reception(record, originals), search, watch)
    events = DocumentEvents(Indexing(record, originals, FakeExtraction(), embedding, index))
    async with serve_locally(partial(add_KnowledgeServiceServicer_to_server, handler)) as channel:
        yield Served(KnowledgeServiceStub(channel), record, originals, index, embedding, events, signer)


def a_file(content: bytes = CONTENT, **changed: object) -> UploadedFile:
    said = {
        "request_id": str(uuid4()),
        "filename": "notes.txt",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return UploadedFile(**said | changed)


def announced(content: bytes = CONTENT, **changed: object) -> UploadDocumentRequest:
    return UploadDocumentRequest(file=a_file(content, **changed))


def chunks_of(content: bytes) -> list[UploadDocumentRequest]:
    return [UploadDocumentRequest(chunk=content[begin : begin + 10]) for begin in range(0, len(content), 10)]


async def stream(parts: Iterable[UploadDocumentRequest]) -> AsyncIterator[UploadDocumentRequest]:
    for part in parts:
        yield part


async def refusal_of(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    refusal = refusal_in(error.value)
    assert refusal, error.value
    return refusal


async def test_an_uploaded_document_is_queued_indexed_and_found(served: Served) -> None:
    document = await served.upload()
    assert (document.filename, document.size_bytes, document.state) == ("notes.txt", 37, DOCUMENT_STATE_QUEUED)
    assert (document.sha256, document.user_id) == (hashlib.sha256(CONTENT).hexdigest(), str(USER))
    await served.work_off(document)
    now = (await served.stub.GetDocument(GetDocumentRequest(document_id=document.id), **served.me())).document
    assert (now.state, now.content_type, now.progress.passages_indexed) == (DOCUMENT_STATE_INDEXED, "text/plain", 2)
    colleague = served.me(user=uuid4())
    answer = await served.stub.Search(SearchRequest(query="dogs at night", limit=1), **colleague)
    [passage] = answer.passages
    assert passage.text.startswith("dogs bark")
    assert (passage.document_id, passage.filename) == (document.id, "notes.txt")
    assert not passage.HasField("page")


async def test_a_failed_document_says_why(served: Served) -> None:
    document = await served.upload(b"broken file")
    await served.work_off(document)
    now = (await served.stub.GetDocument(GetDocumentRequest(document_id=document.id), **served.me())).document
    assert (now.state, now.failure.reason) == (DOCUMENT_STATE_FAILED, ERROR_REASON_DOCUMENT_CORRUPT)
    assert now.failure.message == "It is broken."


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], Reason.INVALID_FIELD),
        (chunks_of(CONTENT), Reason.INVALID_FIELD),
        ([announced(), announced()], Reason.INVALID_FIELD),
        ([announced(), UploadDocumentRequest()], Reason.INVALID_FIELD),
        ([announced(), UploadDocumentRequest(chunk=b"")], Reason.INVALID_FIELD),
        ([announced(), UploadDocumentRequest(chunk=bytes(1024 * 1024 + 1))], Reason.INVALID_FIELD),
        ([announced(filename="../../etc/passwd")], Reason.INVALID_FIELD),
        ([announced(filename="a\nb")], Reason.INVALID_FIELD),
        ([announced(filename="")], Reason.INVALID_FIELD),
        ([announced(sha256="A" * 64)], Reason.INVALID_FIELD),
        ([announced(request_id="1")], Reason.INVALID_FIELD),
        ([announced(b"")], Reason.DOCUMENT_EMPTY),
        ([announced(size_bytes=MAX_BYTES + 1)], Reason.DOCUMENT_TOO_LARGE),
        ([announced(size_bytes=2**64 - 1)], Reason.DOCUMENT_TOO_LARGE),
        ([announced(), *chunks_of(CONTENT[:-1])], Reason.UPLOAD_INCOMPLETE),
        ([announced(), *chunks_of(CONTENT + b"!")], Reason.UPLOAD_INCOMPLETE),
        ([announced(), *chunks_of(CONTENT[::-1])], Reason.CHECKSUM_MISMATCH),
    ],
)
async def test_a_bad_upload_is_refused_and_leaves_nothing(
    served: Served, parts: list[UploadDocumentRequest], reason: Reason
) -> None:
    refusal = await refusal_of(served.stub.UploadDocument(stream(parts), **served.me()))
    assert refusal.reason is reason
    assert (served.originals.objects, served.record.events) == ({}, [])


async def test_a_cancelled_upload_leaves_nothing(served: Served) -> None:
    arrived = asyncio.Event()

    async def halting() -> AsyncIterator[UploadDocumentRequest]:
        yield announced()
        yield chunks_of(CONTENT)[0]
        arrived.set()
        await asyncio.Event().wait()

    call = served.stub.UploadDocument(halting(), **served.me())
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (served.originals.objects, served.record.events) == ({}, [])


async def test_a_repeated_upload_returns_the_first_document(served: Served) -> None:
    request_id = str(uuid4())
    first = await served.upload(request_id=request_id)
    assert await served.upload(request_id=request_id) == first
    parts = [announced(b"other", request_id=request_id), *chunks_of(b"other")]
    refusal = await refusal_of(served.stub.UploadDocument(stream(parts), **served.me()))
    assert refusal.reason is Reason.REQUEST_ID_REUSED


async def test_a_store_that_is_down_is_said(served: Served) -> None:
    served.originals.down = True
    refusal = await refusal_of(served.upload())
    assert refusal.reason is Reason.STORAGE_UNAVAILABLE
    assert served.record.events == []


async def test_an_upload_in_chunks_becomes_a_document(served: Served) -> None:
    file = a_file()
    created = await served.stub.CreateUpload(CreateUploadRequest(file=file), **served.me())
    received = 0
    while received < len(CONTENT):
        append = AppendUploadRequest(
            upload_id=created.upload_id, offset_bytes=received, chunk=CONTENT[received : received + 10]
        )
        received = (await served.stub.AppendUpload(append, **served.me())).received_bytes
        again = await served.stub.CreateUpload(CreateUploadRequest(file=file), **served.me())
        assert (again.upload_id, again.received_bytes) == (created.upload_id, received)
    finish = FinishUploadRequest(upload_id=created.upload_id)
    document = (await served.stub.FinishUpload(finish, **served.me())).document
    assert document.sha256 == file.sha256
    assert (await served.stub.FinishUpload(finish, **served.me())).document == document
    assert list(served.originals.objects.values()) == [CONTENT]


async def test_a_bad_chunk_is_refused(served: Served) -> None:
    created = await served.stub.CreateUpload(CreateUploadRequest(file=a_file()), **served.me())

    async def refused(claims: dict[str, object] | None = None, **changed: object) -> Refusal:
        request = AppendUploadRequest(**{"upload_id": created.upload_id, "chunk": b"chunk"} | changed)
        return await refusal_of(served.stub.AppendUpload(request, **served.me(**claims or {})))

    assert (await refused(offset_bytes=3)).facts["received_bytes"] == "0"
    assert (await refused(offset_bytes=3)).reason is Reason.UPLOAD_OFFSET_MISMATCH
    assert (await refused(offset_bytes=2**64 - 1)).reason is Reason.UPLOAD_OFFSET_MISMATCH
    assert (await refused(chunk=bytes(38))).reason is Reason.DOCUMENT_TOO_LARGE
    assert (await refused(chunk=b"")).reason is Reason.INVALID_FIELD
    assert (await refused(upload_id=str(uuid4()))).reason is Reason.UPLOAD_NOT_FOUND
    assert (await refused(upload_id="no-uuid")).reason is Reason.INVALID_FIELD
    assert (await refused({"user": uuid4()})).reason is Reason.UPLOAD_NOT_FOUND
    assert (await refused({"tenant": uuid4()})).reason is Reason.UPLOAD_NOT_FOUND
    finish = served.stub.FinishUpload(FinishUploadRequest(upload_id=created.upload_id), **served.me())
    assert (await refusal_of(finish)).reason is Reason.UPLOAD_INCOMPLETE
    assert served.originals.objects == {}


async def test_documents_are_listed_newest_first_page_by_page(served: Served) -> None:
    added = [(await served.upload(filename=f"{number}.txt")).id for number in range(5)]
    listed, token = [], ""
    while True:
        request = ListDocumentsRequest(page_size=2, page_token=token)
        page = await served.stub.ListDocuments(request, **served.me())
        listed += [document.id for document in page.documents]
        if not (token := page.next_page_token):
            break
    assert listed == list(reversed(added))
    elsewhere = await served.stub.ListDocuments(ListDocumentsRequest(), **served.me(tenant=uuid4()))
    assert list(elsewhere.documents) == []


@pytest.mark.parametrize(
    "token",
    [
        "x",
        page_token("1"),
        page_token("now", uuid4()),
        page_token("2026-01-01T00:00:00", uuid4()),
        page_token("2026-01-01T00:00:00+00:00", "x"),
    ],
)
async def test_a_page_token_of_somebody_else_is_refused(served: Served, token: str) -> None:
    call = served.stub.ListDocuments(ListDocumentsRequest(page_token=token), **served.me())
    assert (await refusal_of(call)).reason is Reason.PAGE_TOKEN_INVALID


async def test_another_organisations_document_is_not_found(served: Served) -> None:
    document = await served.upload()
    await served.work_off(document)
    stranger = served.me(tenant=uuid4(), role="owner")
    for document_id in (document.id, str(uuid4())):
        asked = {"document_id": document_id}
        for call in (
            served.stub.GetDocument(GetDocumentRequest(**asked), **stranger),
            served.stub.DeleteDocument(DeleteDocumentRequest(**asked), **stranger),
            served.stub.WatchDocument(WatchDocumentRequest(**asked), **stranger).read(),
        ):
            assert (await refusal_of(call)).reason is Reason.DOCUMENT_NOT_FOUND
    assert list((await served.stub.Search(SearchRequest(query="dogs"), **stranger)).passages) == []


async def test_a_deleted_document_is_gone_at_once(served: Served) -> None:
    document = await served.upload()
    await served.work_off(document)
    colleague = served.stub.DeleteDocument(DeleteDocumentRequest(document_id=document.id), **served.me(user=uuid4()))
    assert (await refusal_of(colleague)).reason is Reason.DOCUMENT_NOT_YOURS
    await served.stub.DeleteDocument(DeleteDocumentRequest(document_id=document.id), **served.me())
    call = served.stub.GetDocument(GetDocumentRequest(document_id=document.id), **served.me())
    assert (await refusal_of(call)).reason is Reason.DOCUMENT_NOT_FOUND
    assert list((await served.stub.Search(SearchRequest(query="dogs"), **served.me())).passages) == []
    assert served.record.events[-1] == ("DocumentDeleted", UUID(document.id))


async def test_a_watch_tells_each_step_and_ends(served: Served) -> None:
    document = await served.upload()
    served.embedding.gate.clear()
    watch = served.stub.WatchDocument(WatchDocumentRequest(document_id=document.id), **served.me())
    assert (await watch.read()).document == document
    indexing = asyncio.create_task(served.work_off(document))
    states = [(await watch.read()).document]
    served.embedding.gate.set()
    while (response := await watch.read()) is not grpc.aio.EOF:
        states.append(response.document)
    await indexing
    assert states[0].state == DOCUMENT_STATE_INDEXING
    assert (states[-1].state, states[-1].progress.passages_indexed) == (DOCUMENT_STATE_INDEXED, 2)


async def test_a_watch_of_a_deleted_document_ends_as_not_found(served: Served) -> None:
    document = await served.upload()
    watch = served.stub.WatchDocument(WatchDocumentRequest(document_id=document.id), **served.me())
    await watch.read()
    await served.stub.DeleteDocument(DeleteDocumentRequest(document_id=document.id), **served.me())
    assert (await refusal_of(watch.read())).reason is Reason.DOCUMENT_NOT_FOUND


@pytest.mark.parametrize("part", ["index", "embedding"])
async def test_search_says_when_it_can_not_answer(served: Served, part: str) -> None:
    served.index.down, served.embedding.failures = part == "index", int(part == "embedding")
    refusal = await refusal_of(served.stub.Search(SearchRequest(query="dogs"), **served.me()))
    assert refusal.reason is Reason.SEARCH_UNAVAILABLE


@pytest.mark.parametrize("query", ["\x01\u200b", "' OR 1=1 --", "\u202e", "🤖" * 2000, '"; DROP TABLE documents; --'])
async def test_search_text_may_be_anything(served: Served, query: str) -> None:
    answer = await served.stub.Search(SearchRequest(query=query), **served.me())
    assert list(answer.passages) == []


async def test_search_gives_five_passages_unless_told(served: Served) -> None:
    await served.work_off(await served.upload("\n".join(f"line {number}" for number in range(30)).encode()))
    assert len((await served.stub.Search(SearchRequest(query="line"), **served.me())).passages) == 5
    assert len((await served.stub.Search(SearchRequest(query="line", limit=20), **served.me())).passages) == 20
    for bad in (SearchRequest(query=""), SearchRequest(query="x" * 2001), SearchRequest(query="x", limit=21)):
        assert (await refusal_of(served.stub.Search(bad, **served.me()))).reason is Reason.INVALID_FIELD


async def test_every_method_needs_a_token(served: Served) -> None:
    assert (await refusal_of(served.stub.Search(SearchRequest(query="x")))).reason is Reason.TOKEN_MISSING
    assert (await refusal_of(served.stub.UploadDocument(stream([announced()])))).reason is Reason.TOKEN_MISSING
