"""The RPCs of documents and search, over a real server with the generated client."""

import asyncio
import hashlib
from uuid import UUID, uuid4

import grpc
import pytest

from parley.errors.v1.error_reason_pb2 import ERROR_REASON_DOCUMENT_CORRUPT
from parley.knowledge.v1.document_pb2 import (
    DOCUMENT_STATE_FAILED,
    DOCUMENT_STATE_INDEXED,
    DOCUMENT_STATE_INDEXING,
    DOCUMENT_STATE_QUEUED,
)
from parley.knowledge.v1.knowledge_service_pb2 import (
    DeleteDocumentRequest,
    GetDocumentRequest,
    ListDocumentsRequest,
    SearchRequest,
    WatchDocumentRequest,
)
from services.shared.errors import Reason
from services.shared.pages import page_token
from tests.knowledge.serving import CONTENT, USER, Served, announced, stream
from tests.refusals import refusal_of


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


async def test_documents_are_listed_newest_first_page_by_page(served: Served) -> None:
    added = [(await served.upload(f"text {number}".encode())).id for number in range(5)]
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
        page_token("0001-01-01T00:00:00+23:59", uuid4()),
        page_token("2026-01-01T00:00:00+00:00", "x"),
    ],
    ids=["no token", "too short", "no time", "no zone", "before all time", "no id"],
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
    for number in range(24):
        await served.work_off(await served.upload(f"line {number}".encode()))
    assert len((await served.stub.Search(SearchRequest(query="line"), **served.me())).passages) == 5
    assert len((await served.stub.Search(SearchRequest(query="line", limit=20), **served.me())).passages) == 20
    for bad in (SearchRequest(query=""), SearchRequest(query="x" * 2001), SearchRequest(query="x", limit=21)):
        assert (await refusal_of(served.stub.Search(bad, **served.me()))).reason is Reason.INVALID_FIELD


async def test_every_method_needs_a_token(served: Served) -> None:
    assert (await refusal_of(served.stub.Search(SearchRequest(query="x")))).reason is Reason.TOKEN_MISSING
    assert (await refusal_of(served.stub.UploadDocument(stream([announced()])))).reason is Reason.TOKEN_MISSING
