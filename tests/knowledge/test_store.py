"""One suite for the record: on the fake, and on real PostgreSQL."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from services.knowledge.document import Document, DocumentState, Failure, Member, Progress
from services.knowledge.indexing import Extracted
from services.knowledge.passages import Passage, passage_id
from services.shared.errors import Reason
from tests.knowledge.conftest import Record, a_file, a_member, add, uploader

PASSAGES = [Passage(0, "First.", 1, ("Part", "Größe — מדריך")), Passage(1, "Second.", 2), Passage(2, "Third.")]
FAILURE = Failure(Reason.DOCUMENT_CORRUPT, "It is damaged: save it again.")


async def indexing(record: Record, member: Member | None = None) -> Document:
    """A document that is being indexed, in PASSAGES."""
    document = await add(record, member)
    await record.documents.begin_indexing(document.tenant_id, document.id)
    await record.documents.announce(document, Extracted("application/pdf", 2, 3, iter(())))
    return document


async def indexed(record: Record, member: Member | None = None) -> Document:
    document = await indexing(record, member)
    assert await record.documents.add_passages(document, PASSAGES)
    assert await record.documents.complete(document, 3, 1)
    return document


def ids(document: Document) -> list[UUID]:
    return [passage_id(document.id, passage.position) for passage in PASSAGES]


async def test_a_document_comes_back_as_it_was_added(record: Record) -> None:
    member, file = a_member(), a_file(filename="Größe — מדריך.pdf")
    document = await add(record, member, file)
    assert (document.tenant_id, document.user_id, document.file) == (member.tenant_id, member.user_id, file)
    assert (document.state, document.progress, document.failure) == (DocumentState.QUEUED, Progress(), None)
    assert await record.documents.find(member.tenant_id, document.id) == document
    assert await record.events(document.id) == ["DocumentUploaded"]


async def test_another_organisation_finds_nothing(record: Record) -> None:
    document, stranger = await indexed(record), a_member()
    assert await record.documents.find(stranger.tenant_id, document.id) is None
    assert await record.documents.newest(stranger, None, 10) == []
    assert not await record.documents.delete(stranger, replace(document, tenant_id=stranger.tenant_id))
    assert await record.documents.searchable(stranger.tenant_id, ids(document), 10) == []
    assert await record.documents.begin_indexing(stranger.tenant_id, document.id) is None


async def test_the_same_request_adds_one_document_and_one_event(record: Record) -> None:
    member, file = a_member(), a_file()
    first = await add(record, member, file)
    assert await add(record, member, replace(file, filename="other.txt")) == first
    assert await record.uploads.expect(member, file) == first
    assert await record.events(first.id) == ["DocumentUploaded"]


async def test_two_members_may_use_one_request_id(record: Record) -> None:
    member, file = a_member(), a_file()
    first = await add(record, member, file)
    assert (await add(record, a_member(member.tenant_id), file)).id != first.id


async def test_the_same_document_added_at_once_is_added_once(record: Record) -> None:
    member, file, document_id = a_member(), a_file(), uuid4()
    added = await asyncio.gather(*(record.uploads.add_document(member, document_id, file) for _ in range(8)))
    assert {document.id for document in added} == {document_id}
    assert await record.events(document_id) == ["DocumentUploaded"]


async def test_newest_come_first_page_by_page(record: Record) -> None:
    member = a_member()
    added = [await add(record, member) for _ in range(3)]
    first = await record.documents.newest(member, None, 2)
    assert [found.id for found in first] == [added[2].id, added[1].id]
    rest = await record.documents.newest(member, (first[-1].create_time, first[-1].id), 2)
    assert [found.id for found in rest] == [added[0].id]


async def test_progress_is_written_as_it_is_made(record: Record) -> None:
    document = await indexing(record)
    assert await record.documents.add_passages(document, PASSAGES[:2])
    now = await record.documents.find(document.tenant_id, document.id)
    assert now
    assert (now.state, now.content_type) == (DocumentState.INDEXING, "application/pdf")
    assert now.progress == Progress(pages=2, passages=3, passages_indexed=2)


async def test_passages_are_found_when_their_document_is_indexed(record: Record) -> None:
    document = await indexing(record)
    await record.documents.add_passages(document, PASSAGES)
    wanted = list(reversed(ids(document)))
    assert await record.documents.searchable(document.tenant_id, wanted, 10) == []
    assert await record.documents.complete(document, 3, 1)
    found = await record.documents.searchable(document.tenant_id, [uuid4(), *wanted], 10)
    assert [passage.passage for passage in found] == list(reversed(PASSAGES))
    assert {(passage.document_id, passage.filename) for passage in found} == {(document.id, "notes.txt")}
    assert len(await record.documents.searchable(document.tenant_id, wanted, 2)) == 2
    assert await record.events(document.id) == ["DocumentUploaded", "DocumentIndexed"]


async def test_a_sample_is_of_the_organisation_alone(record: Record) -> None:
    document = await indexing(record)
    await record.documents.add_passages(document, PASSAGES)
    sample = await record.documents.sample(document.tenant_id, 10)
    assert sorted(sample, key=lambda passage: passage.position) == PASSAGES
    assert len(await record.documents.sample(document.tenant_id, 2)) == 2
    assert await record.documents.sample(uuid4(), 10) == []


async def test_indexing_again_from_the_start_doubles_nothing(record: Record) -> None:
    document = await indexing(record)
    await record.documents.add_passages(document, PASSAGES)
    again = await record.documents.begin_indexing(document.tenant_id, document.id)
    assert again
    assert again.progress == Progress()
    await record.documents.announce(document, Extracted("application/pdf", 2, 3, iter(())))
    for _ in range(2):
        assert await record.documents.add_passages(document, PASSAGES)
    await record.documents.complete(document, 3, 1)
    assert len(await record.documents.searchable(document.tenant_id, ids(document), 10)) == 3
    now = await record.documents.find(document.tenant_id, document.id)
    assert now
    assert now.progress.passages_indexed == 3


async def test_only_the_first_end_counts(record: Record) -> None:
    document = await indexed(record)
    assert not await record.documents.complete(document, 3, 1)
    assert not await record.documents.fail(document, FAILURE)
    assert not await record.documents.add_passages(document, PASSAGES)
    again = await record.documents.begin_indexing(document.tenant_id, document.id)
    assert again
    assert again.state is DocumentState.INDEXED
    assert await record.events(document.id) == ["DocumentUploaded", "DocumentIndexed"]


async def test_a_failed_document_says_why_and_has_no_passages(record: Record) -> None:
    document = await indexing(record)
    await record.documents.add_passages(document, PASSAGES)
    assert await record.documents.fail(document, FAILURE)
    now = await record.documents.find(document.tenant_id, document.id)
    assert now
    assert (now.state, now.failure) == (DocumentState.FAILED, FAILURE)
    assert await record.documents.searchable(document.tenant_id, ids(document), 10) == []
    assert await record.events(document.id) == ["DocumentUploaded", "DocumentFailed"]


async def test_a_deleted_document_is_gone_with_its_passages(record: Record) -> None:
    document = await indexed(record)
    assert await record.documents.delete(uploader(document), document)
    assert await record.documents.find(document.tenant_id, document.id) is None
    assert await record.documents.searchable(document.tenant_id, ids(document), 10) == []
    assert not await record.documents.delete(uploader(document), document)
    assert (await record.events(document.id))[-1] == "DocumentDeleted"


async def test_a_document_deleted_meanwhile_gets_no_passages_and_no_end(record: Record) -> None:
    document = await indexing(record)
    await record.documents.delete(uploader(document), document)
    assert not await record.documents.add_passages(document, PASSAGES)
    assert not await record.documents.complete(document, 3, 1)
    assert not await record.documents.fail(document, FAILURE)
    assert await record.documents.begin_indexing(document.tenant_id, document.id) is None
    assert await record.events(document.id) == ["DocumentUploaded", "DocumentDeleted"]


async def test_an_upload_is_found_again_by_its_request(record: Record) -> None:
    member, file, upload_id = a_member(), a_file(), uuid4()
    upload = await record.uploads.begin(member, upload_id, file)
    assert (upload.id, upload.file, upload.received_bytes, upload.finished) == (upload_id, file, 0, False)
    assert await record.uploads.begin(member, uuid4(), file) == upload
    assert await record.uploads.find_upload(member, upload_id) == upload


async def test_an_upload_belongs_to_who_began_it(record: Record) -> None:
    member = a_member()
    upload = await record.uploads.begin(member, uuid4(), a_file())
    for stranger in (a_member(), a_member(member.tenant_id)):
        assert await record.uploads.find_upload(stranger, upload.id) is None
        assert not await record.uploads.advance(stranger, upload, 5)
        await record.uploads.drop(stranger, upload.id)
    assert await record.uploads.find_upload(member, upload.id) == upload


async def test_an_upload_advances_from_where_it_stands(record: Record) -> None:
    member = a_member()
    upload = await record.uploads.begin(member, uuid4(), a_file())
    assert await record.uploads.advance(member, upload, 4)
    assert not await record.uploads.advance(member, upload, 4)
    now = await record.uploads.find_upload(member, upload.id)
    assert now
    assert now.received_bytes == 4


async def test_an_upload_ends_when_its_document_is_added(record: Record) -> None:
    member, file = a_member(), a_file()
    upload = await record.uploads.begin(member, uuid4(), file)
    document = await record.uploads.add_document(member, upload.id, file)
    assert await record.uploads.find_upload(member, upload.id) is None
    assert await record.uploads.find_uploaded(member, upload.id) == document
    assert await record.uploads.find_uploaded(a_member(member.tenant_id), upload.id) is None
    again = await record.uploads.begin(member, uuid4(), file)
    assert (again.id, again.received_bytes, again.finished) == (document.id, file.size_bytes, True)


async def test_dropped_and_old_uploads_are_gone(record: Record) -> None:
    member = a_member()
    dropped, old = [await record.uploads.begin(member, uuid4(), a_file()) for _ in range(2)]
    await record.uploads.drop(member, dropped.id)
    assert await record.uploads.find_upload(member, dropped.id) is None
    await record.uploads.drop_older_than(3600)
    assert await record.uploads.find_upload(member, old.id) == old
    await record.uploads.drop_older_than(-1)
    assert await record.uploads.find_upload(member, old.id) is None


@pytest.mark.parametrize("change", ["begin", "add_passages", "complete", "fail", "delete"])
async def test_each_change_wakes_the_watchers_of_the_document(record: Record, change: str) -> None:
    document = await (add(record) if change == "begin" else indexing(record))
    changes = {
        "begin": lambda: record.documents.begin_indexing(document.tenant_id, document.id),
        "add_passages": lambda: record.documents.add_passages(document, PASSAGES),
        "complete": lambda: record.documents.complete(document, 3, 1),
        "fail": lambda: record.documents.fail(document, FAILURE),
        "delete": lambda: record.documents.delete(uploader(document), document),
    }
    await _quiet(record, document)
    with record.changes.watch(str(document.id)) as changed:
        await changes[change]()
        await asyncio.wait_for(changed.wait(), 5)


async def _quiet(record: Record, document: Document) -> None:
    """Let the notifications of what was done before arrive: they come in the order of the commits."""
    last = await add(record)
    with record.changes.watch(str(last.id)) as changed:
        await record.documents.delete(uploader(last), last)
        await asyncio.wait_for(changed.wait(), 5)
