"""The RPCs of uploads, over a real server with the generated client."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from parley.knowledge.v1.document_pb2 import VISIBILITY_ORGANISATION, VISIBILITY_PRIVATE, Document
from parley.knowledge.v1.knowledge_service_pb2 import (
    AppendUploadRequest,
    CreateUploadRequest,
    DeleteDocumentRequest,
    FinishUploadRequest,
    UpdateDocumentRequest,
    UploadDocumentRequest,
)
from services.knowledge.upload import MAX_BYTES, Quota
from services.shared.errors import Exhausted, Reason, Refusal
from tests.knowledge.serving import CONTENT, Served, a_description, announced, chunks_of, stream
from tests.refusals import refusal_of


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


async def test_what_is_there_already_is_refused_before_its_bytes(served: Served) -> None:
    document = await served.upload()

    async def announced_only() -> AsyncIterator[UploadDocumentRequest]:
        yield announced(filename="copy.txt")
        await asyncio.Event().wait()

    for who in (served.me(), served.me(user=uuid4())):
        for call in (
            served.stub.UploadDocument(announced_only(), **who),
            served.stub.CreateUpload(CreateUploadRequest(file=a_description()), **who),
        ):
            refusal = await refusal_of(call)
            assert (refusal.reason, refusal.facts) == (Reason.DOCUMENT_DUPLICATE, {"document_id": document.id})
    assert (await served.upload(allow_duplicate=True)).id != document.id
    assert (await served.upload(me=served.me(tenant=uuid4()))).id != document.id


async def test_somebody_elses_private_document_is_no_duplicate(served: Served) -> None:
    document = await served.upload(visibility=VISIBILITY_PRIVATE)
    assert (await served.upload(me=served.me(user=uuid4(), role="owner"))).id != document.id


async def test_an_upload_in_chunks_that_comes_second_leaves_nothing(served: Served) -> None:
    created = await served.stub.CreateUpload(CreateUploadRequest(file=a_description()), **served.me())
    append = AppendUploadRequest(upload_id=created.upload_id, chunk=CONTENT)
    await served.stub.AppendUpload(append, **served.me())
    first = await served.upload()
    finish = FinishUploadRequest(upload_id=created.upload_id)
    refusal = await refusal_of(served.stub.FinishUpload(finish, **served.me()))
    assert (refusal.reason, refusal.facts) == (Reason.DOCUMENT_DUPLICATE, {"document_id": first.id})
    assert len(served.originals.objects) == 1
    refusal = await refusal_of(served.stub.FinishUpload(finish, **served.me()))
    assert refusal.reason is Reason.UPLOAD_NOT_FOUND


async def test_an_organisation_that_is_full_is_told_its_limits(served: Served) -> None:
    served.record.quota = Quota(documents=1, size_bytes=100)
    document = await served.upload()
    other = {"file": a_description(b"other")}
    limits = {"limit_documents": "1", "limit_bytes": "100"}
    for call in (
        served.stub.UploadDocument(stream([UploadDocumentRequest(**other)]), **served.me()),
        served.stub.CreateUpload(CreateUploadRequest(**other), **served.me()),
    ):
        refusal = await refusal_of(call)
        assert (type(refusal), refusal.reason, refusal.facts) == (Exhausted, Reason.KNOWLEDGE_FULL, limits)
    await served.stub.DeleteDocument(DeleteDocumentRequest(document_id=document.id), **served.me())
    assert await served.upload(b"other")


async def test_a_repeat_gets_its_document_also_after_it_was_shared_and_moved(served: Served) -> None:
    request_id = str(uuid4())
    first = await served.upload(request_id=request_id, visibility=VISIBILITY_PRIVATE)
    changed = Document(id=first.id, visibility=VISIBILITY_ORGANISATION, collection="plans")
    moved = (await served.stub.UpdateDocument(UpdateDocumentRequest(document=changed), **served.me())).document
    assert await served.upload(request_id=request_id, visibility=VISIBILITY_PRIVATE) == moved


async def test_a_store_that_is_down_is_said(served: Served) -> None:
    served.originals.down = True
    refusal = await refusal_of(served.upload())
    assert refusal.reason is Reason.STORAGE_UNAVAILABLE
    assert served.record.events == []


async def test_an_upload_in_chunks_becomes_a_document(served: Served) -> None:
    file = a_description()
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
    created = await served.stub.CreateUpload(CreateUploadRequest(file=a_description()), **served.me())

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
