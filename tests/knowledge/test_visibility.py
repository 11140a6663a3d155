"""Who sees a document: the record, on the fake and on real PostgreSQL."""

from uuid import uuid4

import pytest

from services.knowledge.document import Change, Collection, Document, Member, Visibility, delete, get, update
from services.knowledge.passages import Passage, passage_id
from services.knowledge.watch import Watch
from services.shared.errors import Forbidden, Invalid, NotFound, Reason
from tests.knowledge.conftest import Record, a_file, a_member, add, uploader

PRIVATE, SHARED = Change(visibility=Visibility.PRIVATE), Change(visibility=Visibility.ORGANISATION)
HOSTILE = ["'", "' OR '1'='1", '"; DROP TABLE documents; --', "%", "_", "\\", "{$ne: 1}", "מדריך", "🤖" * 60, "$1"]


async def private(record: Record, member: Member | None = None, **described: object) -> Document:
    """An indexed document with one passage that only its uploader sees."""
    document = await add(record, member, a_file(visibility=Visibility.PRIVATE, **described))
    await record.documents.begin_indexing(document.tenant_id, document.id)
    await record.documents.add_passages(document, [Passage(0, "Secret.")])
    await record.documents.complete(document, 1, 1)
    return document


def strangers(document: Document) -> list[Member]:
    """Everybody from whom a private document is hidden, each also with what could be mistaken for its uploader."""
    colleagues = [Member(document.tenant_id, uuid4(), role) for role in ("viewer", "member", "admin", "owner")]
    return [*colleagues, Member(uuid4(), document.user_id, "owner"), Member(document.user_id, document.tenant_id, "x")]


async def test_a_private_document_exists_for_its_uploader_alone(record: Record) -> None:
    document = await private(record, collection="plans")
    passages = [passage_id(document.id, 0)]
    for member in strangers(document):
        assert await record.documents.find_visible(member, document.id) is None
        assert await record.documents.newest(member, None, 10) == []
        assert await record.documents.newest(member, None, 10, "plans") == []
        assert await record.documents.collections(member, None, 10) == []
        assert await record.documents.searchable(member.tenant_id, passages, 10, member.user_id) == []
        assert await record.documents.update(member, document.id, SHARED) is None
        assert not await record.documents.delete(member, document)
        for work in (
            get(record.documents, member, document.id),
            update(record.documents, member, document.id, SHARED),
            delete(record.documents, member, document.id),
            anext(Watch(record.documents, record.changes, clock_s=lambda: 0.0)(member, document.id, 60.0)),
        ):
            with pytest.raises(NotFound) as refused:
                await work
            assert refused.value.reason is Reason.DOCUMENT_NOT_FOUND
    assert await record.documents.searchable(document.tenant_id, passages, 10) == []
    assert await record.documents.sample(document.tenant_id, 10) == []
    me = uploader(document)
    assert await record.documents.find_visible(me, document.id)
    assert await record.documents.collections(me, None, 10) == [Collection("plans", 1)]
    assert [found.id for found in await record.documents.newest(me, None, 10, "plans")] == [document.id]
    [found] = await record.documents.searchable(me.tenant_id, passages, 10, me.user_id)
    assert found.document_id == document.id


async def test_its_uploader_shares_and_unshares_a_document(record: Record) -> None:
    document = await private(record)
    me, colleague, passages = uploader(document), a_member(document.tenant_id), [passage_id(document.id, 0)]
    shared = await update(record.documents, me, document.id, SHARED)
    assert shared.file.visibility is Visibility.ORGANISATION
    assert await record.documents.find_visible(colleague, document.id) == shared
    assert len(await record.documents.searchable(me.tenant_id, passages, 10, colleague.user_id)) == 1
    with pytest.raises(Forbidden) as refused:
        await update(record.documents, Member(me.tenant_id, uuid4(), "owner"), document.id, PRIVATE)
    assert refused.value.reason is Reason.DOCUMENT_NOT_YOURS
    await update(record.documents, me, document.id, PRIVATE)
    assert await record.documents.find_visible(colleague, document.id) is None
    assert await record.documents.searchable(me.tenant_id, passages, 10, colleague.user_id) == []
    assert (await record.events(document.id))[-2:] == ["DocumentUpdated", "DocumentUpdated"]


async def test_a_colleague_who_watches_is_told_when_a_document_is_hidden(record: Record) -> None:
    document = await add(record)
    watch = Watch(record.documents, record.changes, clock_s=lambda: 0.0)
    watched = watch(a_member(document.tenant_id), document.id, 60.0)
    assert await anext(watched) == document
    await update(record.documents, uploader(document), document.id, PRIVATE)
    with pytest.raises(NotFound):
        await anext(watched)


async def test_a_change_names_what_it_changes(record: Record) -> None:
    document = await private(record, collection="plans")
    moved = await update(record.documents, uploader(document), document.id, Change(collection="facts"))
    assert (moved.file.collection, moved.file.visibility) == ("facts", Visibility.PRIVATE)
    out = await update(record.documents, uploader(document), document.id, Change(collection=""))
    assert (out.file.collection, out.file.filename) == ("", document.file.filename)
    assert await update(record.documents, uploader(document), document.id, Change()) == out


async def test_collections_are_those_of_what_a_member_sees(record: Record) -> None:
    member = a_member()
    colleague = a_member(member.tenant_id)
    for name in ("b", "a", "b", "", "é"):
        await add(record, member, a_file(collection=name))
    await private(record, colleague, collection="b")
    await private(record, colleague, collection="c")
    seen = [Collection("", 1), Collection("a", 1), Collection("b", 2), Collection("é", 1)]
    assert await record.documents.collections(member, None, 10) == seen
    assert await record.documents.collections(member, "", 2) == seen[1:3]
    assert Collection("c", 1) in await record.documents.collections(colleague, "b", 10)
    assert await record.documents.collections(a_member(), None, 10) == []


async def test_a_collection_is_filtered_by_its_exact_name(record: Record) -> None:
    member = a_member()
    added = {name: (await add(record, member, a_file(collection=name))).id for name in HOSTILE}
    for name, document_id in added.items():
        assert [found.id for found in await record.documents.newest(member, None, 100, name)] == [document_id]
        assert await record.documents.newest(a_member(), None, 100, name) == []
    assert await record.documents.newest(member, None, 100, "") == []
    assert {found.name for found in await record.documents.collections(member, None, 100)} == set(HOSTILE)


async def test_text_that_the_record_can_not_hold_is_refused(real_record: Record) -> None:
    with pytest.raises(Invalid) as refused:
        await real_record.documents.newest(a_member(), None, 10, "a\0")
    assert refused.value.reason is Reason.INVALID_FIELD
