"""The RPCs of collections and visibility, over a real server with the generated client."""

from collections.abc import Iterator
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from parley.knowledge.v1.document_pb2 import (
    VISIBILITY_ORGANISATION,
    VISIBILITY_PRIVATE,
    VISIBILITY_UNSPECIFIED,
    Collection,
    Document,
)
from parley.knowledge.v1.knowledge_service_pb2 import (
    CreateUploadRequest,
    DeleteDocumentRequest,
    GetDocumentRequest,
    ListCollectionsRequest,
    ListDocumentsRequest,
    SearchRequest,
    UpdateDocumentRequest,
    WatchDocumentRequest,
)
from services.shared.errors import Reason
from services.shared.pages import page_token
from tests.knowledge.serving import USER, Served, a_description, announced, stream
from tests.refusals import refusal_of

GOOD_NAMES = ["Plans 2026", "it's", '"; DROP TABLE documents; --', "%_\\", "מדריך", "می\u200cخواهم", "🤖" * 60, "a  b"]
BAD_NAMES = [" a", "a ", "a\0", "a\nb", "\x7f", "\u202egpj", "a\u2066b", "a\u200bb", "\ufeff", "a\U000e0041", "x" * 61]


def probes(served: Served, document_id: str, who: dict[str, object]) -> Iterator[grpc.aio.Call]:
    """Each call that names a document."""
    asked = {"document_id": document_id}
    yield served.stub.GetDocument(GetDocumentRequest(**asked), **who)
    yield served.stub.DeleteDocument(DeleteDocumentRequest(**asked), **who)
    yield served.stub.WatchDocument(WatchDocumentRequest(**asked), **who).read()
    for change in ({}, {"visibility": VISIBILITY_ORGANISATION}, {"collection": "mine"}):
        yield served.stub.UpdateDocument(UpdateDocumentRequest(document=Document(id=document_id, **change)), **who)


async def updated(served: Served, document: Document, *paths: str, **changed: object) -> Document:
    mask = FieldMask(paths=paths) if paths else None
    request = UpdateDocumentRequest(document=Document(id=document.id, **changed), update_mask=mask)
    return (await served.stub.UpdateDocument(request, **served.me())).document


async def listed(served: Served, who: dict[str, object], **filtered: object) -> list[str]:
    page = await served.stub.ListDocuments(ListDocumentsRequest(**filtered), **who)
    return [document.id for document in page.documents]


async def test_a_private_document_is_not_found_by_anybody_else(served: Served) -> None:
    document = await served.upload(visibility=VISIBILITY_PRIVATE, collection="plans")
    await served.work_off(document)
    colleagues = [served.me(user=uuid4(), role=role) for role in ("viewer", "member", "admin", "owner")]
    for who in (*colleagues, served.me(tenant=uuid4(), role="owner"), served.me(tenant=USER, user=uuid4())):
        for call in probes(served, document.id, who):
            assert (await refusal_of(call)).reason is Reason.DOCUMENT_NOT_FOUND
        assert await listed(served, who) == await listed(served, who, collection="plans") == []
        assert list((await served.stub.ListCollections(ListCollectionsRequest(), **who)).collections) == []
        assert list((await served.stub.Search(SearchRequest(query="dogs"), **who)).passages) == []
    assert await listed(served, served.me()) == [document.id]
    found = (await served.stub.GetDocument(GetDocumentRequest(document_id=document.id), **served.me())).document
    assert (found.visibility, found.collection) == (VISIBILITY_PRIVATE, "plans")


async def test_a_document_is_for_the_organisation_unless_told(served: Served) -> None:
    document = await served.upload()
    assert (document.visibility, document.collection) == (VISIBILITY_ORGANISATION, "")
    assert await listed(served, served.me(user=uuid4())) == [document.id]


async def test_the_uploader_shares_and_unshares(served: Served) -> None:
    document, colleague = await served.upload(visibility=VISIBILITY_PRIVATE), served.me(user=uuid4(), role="owner")
    shared = await updated(served, document, visibility=VISIBILITY_ORGANISATION)
    assert shared.visibility == VISIBILITY_ORGANISATION
    assert await listed(served, colleague) == [document.id]
    change = UpdateDocumentRequest(document=Document(id=document.id, visibility=VISIBILITY_PRIVATE))
    assert (await refusal_of(served.stub.UpdateDocument(change, **colleague))).reason is Reason.DOCUMENT_NOT_YOURS
    hidden = await updated(served, document, "visibility", visibility=VISIBILITY_PRIVATE)
    assert hidden == document
    assert await listed(served, colleague) == []


async def test_an_update_takes_what_the_mask_names(served: Served) -> None:
    document = await served.upload(collection="plans")
    assert (await updated(served, document, filename="other.txt", state=4)) == document
    assert (await updated(served, document, "visibility", visibility=1, collection="x")).collection == "plans"
    out = await updated(served, document, "collection")
    assert (out.collection, out.visibility, out.filename) == ("", VISIBILITY_PRIVATE, "notes.txt")
    assert (await updated(served, document, collection="facts")).collection == "facts"


@pytest.mark.parametrize(
    ("paths", "changed"),
    [
        (["filename"], {"filename": "other.txt"}),
        (["user_id"], {"user_id": str(uuid4())}),
        (["visibility"], {"visibility": VISIBILITY_UNSPECIFIED}),
        (["visibility"], {"visibility": 99}),
        *((["collection"], {"collection": name}) for name in BAD_NAMES),
    ],
)
async def test_a_bad_change_is_refused(served: Served, paths: list[str], changed: dict[str, object]) -> None:
    document = await served.upload()
    assert (await refusal_of(updated(served, document, *paths, **changed))).reason is Reason.INVALID_FIELD
    for bad in ("", "1", f"{document.id}' OR '1'='1"):
        request = UpdateDocumentRequest(document=Document(id=bad))
        refusal = await refusal_of(served.stub.UpdateDocument(request, **served.me()))
        assert refusal.reason is Reason.INVALID_FIELD


async def test_a_collection_may_have_any_name_that_people_can_see(served: Served) -> None:
    for name in GOOD_NAMES:
        document = await served.upload(name.encode(), collection=name)
        assert document.collection == name
        assert await listed(served, served.me(), collection=name) == [document.id]
    assert await listed(served, served.me(), collection="") == []
    assert await listed(served, served.me(), collection="' OR '1'='1") == []
    for name in BAD_NAMES:
        for call in (
            served.stub.UploadDocument(stream([announced(collection=name)]), **served.me()),
            served.stub.CreateUpload(CreateUploadRequest(file=a_description(collection=name)), **served.me()),
        ):
            assert (await refusal_of(call)).reason is Reason.INVALID_FIELD


async def test_collections_are_listed_page_by_page(served: Served) -> None:
    for number, name in enumerate(["b", "a", "", "b", "ж"]):
        await served.upload(str(number).encode(), collection=name)
    request, found = ListCollectionsRequest(page_size=3), []
    while True:
        page = await served.stub.ListCollections(request, **served.me())
        found += [(collection.name, collection.documents) for collection in page.collections]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == [("", 1), ("a", 1), ("b", 2), ("ж", 1)]
    assert (
        Collection(name="b", documents=2)
        in (await served.stub.ListCollections(ListCollectionsRequest(), **served.me(user=uuid4()))).collections
    )
    for token in ("x", page_token("a", "b"), page_token("\0"), page_token("\ud800")):
        call = served.stub.ListCollections(ListCollectionsRequest(page_token=token), **served.me())
        assert (await refusal_of(call)).reason is Reason.PAGE_TOKEN_INVALID
