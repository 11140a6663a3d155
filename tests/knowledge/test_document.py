"""Deleting and watching documents."""

import asyncio
from uuid import uuid4

import pytest

from services.knowledge.document import DocumentState, Failure, Member, delete
from services.knowledge.watch import Watch
from services.shared.errors import Forbidden, NotFound, Reason, Unauthenticated
from tests.knowledge.conftest import Record, a_member, add, uploader

NOON_S = 1000.0


@pytest.mark.parametrize(("role", "own"), [("viewer", True), ("member", True), ("admin", False), ("owner", False)])
async def test_uploader_admin_and_owner_may_delete(fake_record: Record, role: str, own: bool) -> None:
    document = await add(fake_record)
    member = Member(document.tenant_id, document.user_id if own else uuid4(), role)
    await delete(fake_record.documents, member, document.id)
    assert await fake_record.documents.find(document.tenant_id, document.id) is None


@pytest.mark.parametrize("role", ["member", "viewer"])
async def test_colleagues_may_not_delete(fake_record: Record, role: str) -> None:
    document = await add(fake_record)
    with pytest.raises(Forbidden) as refused:
        await delete(fake_record.documents, a_member(document.tenant_id, role), document.id)
    assert refused.value.reason is Reason.DOCUMENT_NOT_YOURS
    assert await fake_record.documents.find(document.tenant_id, document.id) == document


async def test_for_another_organisation_there_is_nothing_to_delete(fake_record: Record) -> None:
    document = await add(fake_record)
    with pytest.raises(NotFound) as refused:
        await delete(fake_record.documents, a_member(None, "owner"), document.id)
    assert refused.value.reason is Reason.DOCUMENT_NOT_FOUND
    assert await fake_record.documents.find(document.tenant_id, document.id) == document


@pytest.fixture
def watch(record: Record) -> Watch:
    return Watch(record.documents, record.changes, clock_s=lambda: NOON_S)


async def test_a_watcher_sees_each_state_to_the_end(record: Record, watch: Watch) -> None:
    document = await add(record)
    watched = watch(uploader(document), document.id, NOON_S + 60)
    assert (await anext(watched)).state is DocumentState.QUEUED
    await record.documents.begin_indexing(document.tenant_id, document.id)
    assert (await anext(watched)).state is DocumentState.INDEXING
    await record.documents.fail(document, Failure(Reason.DOCUMENT_CORRUPT, "damaged"))
    last = await anext(watched)
    assert (last.state, last.failure) == (DocumentState.FAILED, Failure(Reason.DOCUMENT_CORRUPT, "damaged"))
    assert await anext(watched, None) is None


async def test_a_late_watcher_sees_the_last_state_and_the_end(record: Record, watch: Watch) -> None:
    document = await add(record)
    await record.documents.begin_indexing(document.tenant_id, document.id)
    await record.documents.complete(document, 0, 1)
    seen = [found.state async for found in watch(uploader(document), document.id, NOON_S + 60)]
    assert seen == [DocumentState.INDEXED]


async def test_a_watcher_is_told_of_a_deletion(record: Record, watch: Watch) -> None:
    document = await add(record)
    watched = watch(uploader(document), document.id, NOON_S + 60)
    await anext(watched)
    following = asyncio.ensure_future(anext(watched))
    await record.documents.delete(uploader(document), document)
    with pytest.raises(NotFound) as refused:
        await following
    assert refused.value.reason is Reason.DOCUMENT_NOT_FOUND


async def test_another_organisation_can_not_watch(record: Record, watch: Watch) -> None:
    document = await add(record)
    with pytest.raises(NotFound):
        await anext(watch(a_member(), document.id, NOON_S + 60))


async def test_a_watch_ends_with_the_sign_in(fake_record: Record) -> None:
    document = await add(fake_record)
    watch = Watch(fake_record.documents, fake_record.changes, clock_s=lambda: NOON_S)
    watched = watch(uploader(document), document.id, NOON_S + 0.01)
    await anext(watched)
    with pytest.raises(Unauthenticated) as refused:
        await anext(watched)
    assert refused.value.reason is Reason.TOKEN_EXPIRED
