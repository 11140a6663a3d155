"""One document of one content, and no more than an organisation may have: on the fake and on real PostgreSQL."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from services.knowledge.document import Change, Document, Failure, File, Member, Visibility
from services.knowledge.upload import Duplicate, Full, Upload
from services.shared.errors import Reason
from tests.knowledge.conftest import QUOTA, Record, a_file, a_member, uploader

PRIVATE, ORGANISATION = Visibility.PRIVATE, Visibility.ORGANISATION
Answer = Document | Duplicate | Full


async def taken(record: Record, member: Member, file: File | None = None) -> Document:
    document = await record.uploads.add_document(member, uuid4(), file or a_file(uuid4().bytes))
    assert isinstance(document, Document)
    return document


async def at_once(record: Record, *uploads: tuple[Member, File]) -> Sequence[Answer]:
    return await asyncio.gather(*(record.uploads.add_document(member, uuid4(), file) for member, file in uploads))


async def test_what_a_member_sees_is_not_taken_twice(record: Record) -> None:
    document = await taken(record, a_member())
    colleague, content = a_member(document.tenant_id), document.file
    for member in (uploader(document), colleague):
        for visibility in Visibility:
            again = replace(content, request_id=uuid4(), filename="other.txt", visibility=visibility)
            assert await record.uploads.expect(member, again) == Duplicate(document.id)
            assert await record.uploads.begin(member, uuid4(), again) == Duplicate(document.id)
            assert await record.uploads.add_document(member, uuid4(), again) == Duplicate(document.id)
    again = replace(content, request_id=uuid4(), allow_duplicate=True)
    assert (await taken(record, colleague, again)).id != document.id
    assert (await taken(record, a_member(), content)).id != document.id


async def test_what_a_member_does_not_see_is_never_named(record: Record) -> None:
    document = await taken(record, a_member(), a_file(uuid4().bytes, visibility=PRIVATE))
    again = replace(document.file, request_id=uuid4())
    assert await record.uploads.add_document(uploader(document), uuid4(), again) == Duplicate(document.id)
    for colleague in (a_member(document.tenant_id), a_member(document.tenant_id, "owner")):
        hidden = replace(document.file, request_id=uuid4())
        assert await record.uploads.expect(colleague, hidden) is None
        assert isinstance(await record.uploads.begin(colleague, uuid4(), hidden), Upload)
        assert (await taken(record, colleague, hidden)).id != document.id


async def test_a_document_that_failed_or_was_deleted_is_no_duplicate(record: Record) -> None:
    member, content = a_member(), a_file(uuid4().bytes)
    failed = await taken(record, member, content)
    await record.documents.fail(failed, Failure(Reason.INDEXING_FAILED, "Upload it again."))
    second = await taken(record, member, replace(content, request_id=uuid4()))
    await record.documents.delete(member, second)
    await taken(record, member, replace(content, request_id=uuid4()))


async def test_a_document_can_be_shared_beside_another_one_of_its_content(record: Record) -> None:
    hidden = await taken(record, a_member(), a_file(uuid4().bytes, visibility=PRIVATE))
    shown = await taken(record, a_member(hidden.tenant_id), replace(hidden.file, visibility=ORGANISATION))
    assert await record.documents.update(uploader(hidden), hidden.id, Change(visibility=ORGANISATION))
    again = replace(shown.file, request_id=uuid4())
    answer = await record.uploads.add_document(a_member(hidden.tenant_id), uuid4(), again)
    assert answer == Duplicate(hidden.id)
    assert await record.documents.delete(uploader(hidden), hidden)
    assert await record.uploads.expect(a_member(hidden.tenant_id), again) == Duplicate(shown.id)


@pytest.mark.parametrize("visibilities", [[ORGANISATION] * 8, [PRIVATE] * 8, [ORGANISATION, PRIVATE] * 4])
async def test_one_content_uploaded_at_once_is_one_document(record: Record, visibilities: list[Visibility]) -> None:
    await asyncio.gather(*(record.documents.find(uuid4(), uuid4()) for _ in visibilities))  # opens the connections
    for _ in range(10):
        member, content = a_member(), a_file(uuid4().bytes)
        files = [replace(content, request_id=uuid4(), visibility=visibility) for visibility in visibilities]
        answers = await at_once(record, *((member, file) for file in files))
        [document] = [answer for answer in answers if isinstance(answer, Document)]
        assert [answer for answer in answers if answer != document] == [Duplicate(document.id)] * 7
        assert len(await record.documents.newest(member, None, 100)) == 1


async def test_colleagues_at_once_share_one_document_or_have_one_each(record: Record) -> None:
    members = [a_member() for _ in range(1)]
    members += [a_member(members[0].tenant_id) for _ in range(5)]
    shared, hidden = a_file(uuid4().bytes), a_file(uuid4().bytes, visibility=PRIVATE)
    answers = await at_once(record, *((member, replace(shared, request_id=uuid4())) for member in members))
    assert sum(isinstance(answer, Document) for answer in answers) == 1
    answers = await at_once(record, *((member, replace(hidden, request_id=uuid4())) for member in members))
    assert all(isinstance(answer, Document) for answer in answers)


async def test_an_organisation_takes_as_many_documents_as_it_may(record: Record) -> None:
    member = a_member()
    files = [a_file(uuid4().bytes) for _ in range(QUOTA.documents + 5)]
    answers = await at_once(record, *((a_member(member.tenant_id), file) for file in files))
    assert answers.count(Full(QUOTA)) == 5
    documents = [answer for answer in answers if isinstance(answer, Document)]
    more = a_file(uuid4().bytes)
    assert await record.uploads.expect(member, more) == Full(QUOTA)
    assert await record.uploads.begin(member, uuid4(), more) == Full(QUOTA)
    assert await record.uploads.add_document(uploader(documents[0]), uuid4(), documents[0].file) == documents[0]
    assert isinstance(await record.uploads.add_document(a_member(), uuid4(), more), Document)
    await record.documents.delete(uploader(documents[0]), documents[0])
    assert await record.uploads.expect(member, more) is None
    await taken(record, member, more)
    assert await record.uploads.add_document(member, uuid4(), a_file(uuid4().bytes)) == Full(QUOTA)


async def test_an_organisation_takes_as_many_bytes_as_it_may(record: Record) -> None:
    member = a_member()
    whole = a_file(bytes(QUOTA.size_bytes))
    for too_large in (QUOTA.size_bytes + 1, 2**40):
        assert await record.uploads.expect(member, replace(whole, size_bytes=too_large)) == Full(QUOTA)
        assert await record.uploads.begin(member, uuid4(), replace(whole, size_bytes=too_large)) == Full(QUOTA)
    document = await taken(record, member, whole)
    assert await record.uploads.add_document(member, uuid4(), a_file()) == Full(QUOTA)
    await record.documents.delete(member, document)
    await taken(record, member, a_file())
    assert await record.uploads.add_document(member, uuid4(), whole) == Full(QUOTA)


@pytest.mark.parametrize("end", ["drop", "sweep", "finish"])
async def test_uploads_on_their_way_count_until_they_end(record: Record, end: str) -> None:
    member, file = a_member(), a_file(bytes(QUOTA.size_bytes))
    upload_id = uuid4()
    for _ in range(2):
        assert isinstance(await record.uploads.begin(member, upload_id, file), Upload)
    assert await record.uploads.begin(member, uuid4(), a_file()) == Full(QUOTA)
    match end:
        case "drop":
            await record.uploads.drop(member, upload_id)
        case "sweep":
            await record.uploads.drop_older_than(-1)
        case "finish":
            document = await record.uploads.add_document(member, upload_id, file)
            assert isinstance(document, Document)
            assert await record.uploads.begin(member, uuid4(), a_file()) == Full(QUOTA)
            await record.documents.delete(member, document)
    other = await record.uploads.begin(member, uuid4(), replace(file, request_id=uuid4()))
    assert isinstance(other, Upload)


async def test_one_request_sent_often_at_once_counts_once(record: Record) -> None:
    member, file, upload_id = a_member(), a_file(bytes(QUOTA.size_bytes)), uuid4()
    begun = await asyncio.gather(*(record.uploads.begin(member, uuid4(), file) for _ in range(6)))
    assert {type(upload) for upload in begun} == {Upload}
    assert len({upload.id for upload in begun}) == 1
    upload_id = begun[0].id
    answers = await asyncio.gather(*(record.uploads.add_document(member, upload_id, file) for _ in range(6)))
    assert {answer.id for answer in answers} == {upload_id}
    await record.documents.delete(member, answers[0])
    answers = await asyncio.gather(*(record.uploads.add_document(member, uuid4(), file) for _ in range(6)))
    assert len({answer.id for answer in answers}) == 1


async def test_what_is_counted_is_what_there_is_after_everything_at_once(record: Record) -> None:
    members, chance = [a_member()], random.Random(4)
    members += [a_member(members[0].tenant_id) for _ in range(3)]
    contents = [a_file(bytes([number])) for number in range(6)]

    async def one_client() -> None:
        for _ in range(25):
            member = chance.choice(members)
            visibility, copy = chance.choice(list(Visibility)), chance.random() < 0.3
            file = replace(chance.choice(contents), request_id=uuid4(), visibility=visibility, allow_duplicate=copy)
            match chance.choice(["add", "begin", "finish", "delete", "share"]):
                case "add":
                    await record.uploads.add_document(member, uuid4(), file)
                case "begin":
                    upload = await record.uploads.begin(member, uuid4(), file)
                    if isinstance(upload, Upload):
                        await record.uploads.drop(member, upload.id)
                case "finish":
                    upload = await record.uploads.begin(member, uuid4(), file)
                    if isinstance(upload, Upload):
                        added = await record.uploads.add_document(member, upload.id, upload.file)
                        if not isinstance(added, Document):
                            await record.uploads.drop(member, upload.id)
                case "delete":
                    for document in await record.documents.newest(member, None, 2):
                        await record.documents.delete(member, document)
                case "share":
                    for document in await record.documents.newest(member, None, 1):
                        await record.documents.update(member, document.id, Change(visibility=visibility))

    await asyncio.gather(*(one_client() for _ in range(8)))
    seen = {found.id for member in members for found in await record.documents.newest(member, None, 100)}
    free = QUOTA.documents - len(seen)
    answers = await at_once(record, *((members[0], a_file(uuid4().bytes)) for _ in range(free + 1)))
    assert answers.count(Full(QUOTA)) == 1
