"""The record of the indexes: on the fake and on real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from services.knowledge.document import Document, DocumentState, Progress
from services.knowledge.indexes.live import CHANGED
from services.knowledge.indexes.reconcile import Stored
from services.knowledge.indexes.store import StoredIndexes
from services.knowledge.indexes.version import Holding, IndexState, IndexVersion, Row
from services.knowledge.indexing import Extracted
from services.knowledge.passages import Passage, passage_id
from services.knowledge.store import StoredDocuments, StoredUploads
from services.knowledge.upload import Quota
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.postgres.queries import load_queries
from stack.mesh import PROJECT
from tests.knowledge.conftest import a_file, a_member, add, uploader
from tests.knowledge.fakes import FakeChanges, FakeRecord
from tests.knowledge.index_fakes import FIRST, FakeIndexRecord

QUERIES = load_queries(PROJECT / "services" / "knowledge" / "queries.sql")


@dataclass(frozen=True)
class Kept:
    """The record of the indexes, and of the documents in them."""

    indexes: StoredIndexes
    documents: StoredDocuments
    uploads: StoredUploads
    changes: FakeChanges
    database: Database | None = None


@pytest.fixture
async def fake_kept() -> Kept:
    changes = FakeChanges()
    record = FakeRecord(changes)
    return Kept(FakeIndexRecord(record, changes), record, record, changes)


@pytest.fixture
async def real_kept(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Kept]:
    async with database_for("knowledge") as database:
        listener = Listener(database, "knowledge")
        async with listener.running():
            indexes = StoredIndexes(database, "embedding", 384)
            yield Kept(indexes, StoredDocuments(database), StoredUploads(database, Quota()), listener, database)


@pytest.fixture(params=["fake", "postgres"])
def kept(request: pytest.FixtureRequest) -> Kept:
    return request.getfixturevalue("fake_kept" if request.param == "fake" else "real_kept")


async def indexing(kept: Kept, passages: int = 3) -> Document:
    """A document whose passages are all written."""
    document = await add(kept, a_member())
    await kept.documents.begin_indexing(document.tenant_id, document.id)
    await kept.documents.announce(document, Extracted("text/plain", 0, passages, iter(())))
    await kept.documents.add_passages(document, [Passage(position, f"text {position}") for position in range(passages)])
    return document


async def indexed(kept: Kept, index_id: int = 1, passages: int = 3) -> Document:
    document = await indexing(kept, passages)
    assert await kept.documents.complete(document, passages, index_id)
    return document


async def building(kept: Kept) -> IndexVersion:
    await kept.indexes.live()
    version = await kept.indexes.begin(uuid4(), "small", 192)
    assert version
    return version


async def test_there_is_a_first_index(kept: Kept) -> None:
    found = await asyncio.gather(*(kept.indexes.live() for _ in range(3)))
    assert found == [[FIRST]] * 3


async def test_one_index_is_built_at_a_time(kept: Kept) -> None:
    await kept.indexes.live()
    requests = [uuid4() for _ in range(4)]
    begun = await asyncio.gather(*(kept.indexes.begin(each, "small", 192) for each in requests))
    [version] = filter(None, begun)
    request_id = requests[begun.index(version)]
    assert (version.state, version.embedding_model, version.dimensions) == (IndexState.BUILDING, "small", 192)
    assert await kept.indexes.live() == [FIRST, version]
    assert await kept.indexes.begin(request_id, "other", 7) == version
    assert await kept.indexes.find_version(version.id) == version


async def test_a_change_of_the_indexes_is_told(kept: Kept) -> None:
    await kept.indexes.live()
    with kept.changes.watch(CHANGED) as changed:
        for change in (lambda: kept.indexes.begin(uuid4(), "small", 192), kept.indexes.cancel, lambda: switched(kept)):
            changed.clear()
            await change()
            await asyncio.wait_for(changed.wait(), 5)


async def switched(kept: Kept) -> None:
    assert await kept.indexes.switch((await building(kept)).id)


async def test_what_an_index_lacks_is_found_in_order(kept: Kept) -> None:
    await kept.indexes.live()
    documents = [await indexed(kept) for _ in range(5)]
    unfinished = await indexing(kept)
    new = await building(kept)
    ids = sorted(document.id for document in documents)
    assert [found.id for found in await kept.indexes.missing(new.id, None, 3)] == ids[:3]
    assert [found.id for found in await kept.indexes.missing(new.id, ids[2], 3)] == ids[3:]
    assert await kept.indexes.missing(FIRST.id, None, 3) == []
    assert await kept.indexes.held(new.id) == Holding(5, 0, 15, 0)
    for document in documents[:2]:
        assert await kept.indexes.hold(document, new.id)
        assert await kept.indexes.hold(document, FIRST.id)
    assert await kept.indexes.held(new.id) == Holding(5, 2, 15, 6)
    assert not await kept.indexes.hold(unfinished, new.id)
    await kept.documents.delete(uploader(documents[2]), documents[2])
    assert not await kept.indexes.hold(documents[2], new.id)
    assert len(await kept.indexes.missing(new.id, None, 10)) == 2
    await kept.indexes.holds_nothing(new.id)
    assert len(await kept.indexes.missing(new.id, None, 10)) == 4
    assert await kept.indexes.missing(FIRST.id, None, 10) == []


async def test_passages_are_read_in_parts(kept: Kept) -> None:
    await kept.indexes.live()
    document = await indexed(kept, passages=5)
    assert [each.position for each in await kept.indexes.passages(document, 0, 2)] == [0, 1]
    [*_, last] = await kept.indexes.passages(document, 3, 9)
    assert (last.position, last.text) == (4, "text 4")
    assert await kept.indexes.passages(document, 5, 9) == []


@pytest.mark.parametrize("count", [2, 5])
async def test_passages_of_an_indexed_document_are_replaced(kept: Kept, count: int) -> None:
    await kept.indexes.live()
    document, unfinished = await indexed(kept), await indexing(kept)
    passages = [Passage(position, f"new {position}", 1, ("Title",)) for position in range(count)]
    progress = Progress(7, count, count)
    assert await kept.indexes.replace_passages(replace(document, content_type="text/csv", progress=progress), passages)
    assert await kept.indexes.passages(document, 0, 10) == passages
    now = await kept.documents.find(document.tenant_id, document.id)
    assert now
    assert (now.content_type, now.progress, now.state) == ("text/csv", progress, DocumentState.INDEXED)
    assert not await kept.indexes.replace_passages(unfinished, passages)


async def test_the_switch_waits_for_the_last_document(kept: Kept) -> None:
    await kept.indexes.live()
    document = await indexed(kept)
    new = await building(kept)
    assert not await kept.indexes.switch(new.id)
    await kept.indexes.hold(document, new.id)
    assert await kept.indexes.switch(new.id)
    [active] = await kept.indexes.live()
    assert (active.id, active.state) == (new.id, IndexState.ACTIVE)
    assert not await kept.indexes.switch(new.id)
    assert await kept.indexes.retired(60.0) == []
    assert await kept.indexes.retired(0.0) == [FIRST.id]
    await kept.indexes.forget(FIRST.id)
    assert await kept.indexes.retired(0.0) == []
    assert await kept.indexes.find_version(FIRST.id) is None


async def test_a_document_does_not_end_in_an_index_that_is_searched_no_more(kept: Kept) -> None:
    await kept.indexes.live()
    document = await indexing(kept)
    new = await building(kept)
    assert await kept.indexes.switch(new.id)
    assert not await kept.documents.complete(document, 3, FIRST.id)
    found = await kept.documents.find(document.tenant_id, document.id)
    assert found
    assert found.state is DocumentState.INDEXING
    assert await kept.documents.complete(document, 3, new.id)
    assert await kept.indexes.missing(new.id, None, 10) == []


async def test_a_cancelled_index_takes_nobodys_place(kept: Kept) -> None:
    new = await building(kept)
    await kept.indexes.cancel()
    await kept.indexes.cancel()
    assert not await kept.indexes.switch(new.id)
    assert await kept.indexes.live() == [FIRST]
    assert await kept.indexes.retired(0.0) == [new.id]
    assert (await building(kept)).id > new.id


async def test_one_keeper_works_at_a_time(kept: Kept) -> None:
    inside: list[int] = []

    async def work() -> None:
        async with kept.indexes.alone():
            inside.append(1)
            assert len(inside) == 1
            await asyncio.sleep(0)
            await kept.indexes.live()
            inside.pop()

    await asyncio.gather(*(work() for _ in range(4)))


async def test_a_switch_waits_for_an_end_under_way_and_sees_it(real_kept: Kept) -> None:
    await real_kept.indexes.live()
    document, new = await indexing(real_kept), await building(real_kept)
    assert real_kept.database
    connection = await real_kept.database.connect()
    async with connection.transaction():
        await connection.fetch(QUERIES["complete_indexing"], document.tenant_id, document.id, b"", FIRST.id)
        switching = asyncio.create_task(real_kept.indexes.switch(new.id))
        await waits_for_a_lock(real_kept.database, switching)
    assert not await switching
    await connection.close()
    assert [found.id for found in await real_kept.indexes.missing(new.id, None, 10)] == [document.id]


async def test_an_end_waits_for_a_switch_under_way_and_is_refused(real_kept: Kept) -> None:
    await real_kept.indexes.live()
    document, new = await indexing(real_kept), await building(real_kept)
    assert real_kept.database
    connection = await real_kept.database.connect()
    async with connection.transaction():
        assert await connection.fetchval(QUERIES["switch_index"], new.id)
        ending = asyncio.create_task(real_kept.documents.complete(document, 3, FIRST.id))
        await waits_for_a_lock(real_kept.database, ending)
    assert not await ending
    await connection.close()
    assert await real_kept.documents.complete(document, 3, new.id)


async def waits_for_a_lock(database: Database, work: asyncio.Task[bool]) -> None:
    """Until the work does, or is done without."""
    connection = await database.connect()
    async with asyncio.timeout(10):
        while not work.done() and not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
    await connection.close()


async def test_rows_and_objects_without_owners_are_told_from_the_living(real_kept: Kept) -> None:
    kept = real_kept
    await kept.indexes.live()
    done, begun, failed, gone = await indexed(kept), await indexing(kept), await indexing(kept), await indexed(kept)
    await kept.documents.delete(uploader(gone), gone)
    assert kept.database
    connection = await kept.database.connect()
    await connection.execute("UPDATE documents SET state = 'failed' WHERE id = $1", failed.id)
    await connection.close()

    def row(document: Document, position: int = 0, **other: object) -> Row:
        tenant_id = other.get("tenant_id", document.tenant_id)
        return Row(passage_id(document.id, position), tenant_id, document.id)

    good = [row(done), row(done, 2), row(begun), row(begun, 99)]
    bad = [row(done, 3), row(done, 0, tenant_id=uuid4()), row(failed), row(gone)]
    found = await kept.indexes.orphans([*good, *bad[:1], *bad[2:]])
    assert found == [bad[0], *bad[2:]]
    assert await kept.indexes.orphans([bad[1]]) == [bad[1]]

    upload = await kept.uploads.begin(a_member(), uuid4(), a_file())
    living = [Stored("a", done.id, False), Stored("b", failed.id, False), Stored("c", upload.id, True)]
    living.append(Stored("e", upload.id, False))
    lost = [Stored("d", gone.id, False), Stored("f", done.id, True)]
    assert await kept.indexes.unknown([*living, *lost]) == lost
    assert {found.id for found in await kept.indexes.held_by(1, None, 10)} == {done.id}
    assert await kept.indexes.drop_stray_passages() == 3
    assert await kept.indexes.drop_stray_passages() == 0


async def test_what_organisations_have_is_counted_anew(real_kept: Kept) -> None:
    kept = real_kept
    await kept.indexes.live()
    first, _ = await indexed(kept), await indexed(kept)
    assert await kept.indexes.recount() == 0
    assert kept.database
    connection = await kept.database.connect()
    await connection.execute("UPDATE usage SET documents = 99 WHERE tenant_id = $1", first.tenant_id)
    await connection.execute("DELETE FROM usage WHERE tenant_id <> $1", first.tenant_id)
    assert await kept.indexes.recount() == 2
    usage = await connection.fetch("SELECT documents, bytes FROM usage")
    await connection.close()
    assert [tuple(row) for row in usage] == [(1, first.file.size_bytes)] * 2
    assert await kept.indexes.recount() == 0


async def test_counting_beside_uploads_and_deletions_counts_right(real_kept: Kept) -> None:
    kept = real_kept
    await kept.indexes.live()
    member = a_member()

    async def come_and_go(number: int) -> None:
        document = await add(kept, member, a_file(f"text {number}".encode()))
        if number % 2:
            assert await kept.documents.delete(uploader(document), document)

    async def count() -> None:
        for _ in range(10):
            await kept.indexes.recount()

    await asyncio.gather(count(), *map(come_and_go, range(40)))
    assert await kept.indexes.recount() == 0
