"""Leftovers of every kind, on a real Milvus, S3 and PostgreSQL: found, mended, and nothing that lives is hurt."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from io import BytesIO
from itertools import count
from uuid import uuid4

import pytest

from services.knowledge.document import Document, Progress
from services.knowledge.index import PassageIndexes
from services.knowledge.indexes.copying import Copying
from services.knowledge.indexes.live import Indexes
from services.knowledge.indexes.rebuild import Rebuild
from services.knowledge.indexes.reconcile import Mended, Reconcile
from services.knowledge.indexes.rereading import Rereading
from services.knowledge.indexes.store import StoredIndexes
from services.knowledge.indexes.version import Index, IndexVersion
from services.knowledge.indexing import Indexing
from services.knowledge.passages import Passage
from services.knowledge.placing import Placing
from services.knowledge.storage import StoredOriginals
from services.knowledge.store import StoredDocuments, StoredUploads
from services.knowledge.upload import Quota
from services.shared.postgres.database import Database
from stack.mesh import Mesh
from tests.knowledge.conftest import a_file, a_member, uploader
from tests.knowledge.fakes import FakeChanges, FakeEmbedding, FakeExtraction, vector_of
from tests.knowledge.test_storage import originals_of

NOTHING = Mended()
_ids = count(1000)


class Workshop:
    """The service's parts on real stores; each with an index of its own."""

    def __init__(self, database: Database, stores: PassageIndexes, originals: StoredOriginals) -> None:
        self.database, self.stores, self.originals = database, stores, originals
        self.record = StoredIndexes(database, "embedding", 384)
        self.documents, self.uploads = StoredDocuments(database), StoredUploads(database, Quota())
        self.embedding, changes = FakeEmbedding(), FakeChanges()

        def opened(version: IndexVersion) -> Index:
            return Index(version, self.embedding, stores.of(version))

        self.indexes = Indexes(self.record, opened, changes)
        self.placing, self.copying = Placing(self.documents, self.indexes), Copying(self.record)
        self.indexing = Indexing(self.documents, originals, FakeExtraction(), self.indexes, self.placing, self.copying)
        rereading = Rereading(self.record, originals, FakeExtraction(), self.indexes, self.copying)
        parts = (self.indexes, self.placing, self.copying, rereading, changes)
        self.keeper = Rebuild(self.record, stores, *parts, grace_s=0)
        self.reconcile = Reconcile(self.record, self.indexes, originals, self.keeper, object_age_s=0)

    async def upload(self, *lines: str) -> Document:
        member, content = a_member(), "\n".join(lines).encode()
        document_id = uuid4()
        await self.originals.put(member.tenant_id, document_id, BytesIO(content))
        document = await self.uploads.add_document(member, document_id, a_file(content))
        assert isinstance(document, Document)
        return document

    async def indexed(self, *lines: str) -> Document:
        document = await self.upload(*lines)
        await self.indexing.index(document.tenant_id, document.id)
        found = await self.documents.find(document.tenant_id, document.id)
        assert found
        return found

    async def rows(self, document: Document) -> int:
        [index] = await self.indexes.live()
        return await index.rows.count(document)

    async def execute(self, sql: str, *values: object) -> None:
        connection = await self.database.connect()
        await connection.execute(sql, *values)
        await connection.close()


@pytest.fixture
async def workshop(
    database_for: Callable[[str], AbstractAsyncContextManager[Database]], stores: Mesh
) -> AsyncIterator[Workshop]:
    async with database_for("knowledge") as database, PassageIndexes(f"http://{stores.address('milvus')}") as indexes:
        connection = await database.connect()
        await connection.execute(f"ALTER TABLE indexes ALTER id RESTART {next(_ids)}")
        await connection.close()
        workshop = Workshop(database, indexes, originals_of(stores))
        await workshop.keeper.step()
        await workshop.reconcile()  # the bucket is everybody's in this run
        assert await workshop.reconcile() == NOTHING
        yield workshop
        [index] = await workshop.indexes.live()
        await indexes.drop(index.version.id)


async def write(workshop: Workshop, document: Document, *texts: str) -> None:
    passages = [Passage(position, text) for position, text in enumerate(texts)]
    [index] = await workshop.indexes.live()
    await index.rows.write(document, passages, [vector_of(text) for text in texts])


async def test_orphans_of_every_kind_are_gone_after_one_look(workshop: Workshop) -> None:
    good = await workshop.indexed("cats", "dogs", "stars")
    gone, short, lost, part = [await workshop.indexed("one", "two", "three") for _ in range(4)]
    ghost = replace(good, id=uuid4(), tenant_id=uuid4())

    await write(workshop, ghost, "never", "was")
    await workshop.originals.put(ghost.tenant_id, ghost.id, BytesIO(b"x"))
    await workshop.originals.put_chunk(ghost.tenant_id, uuid4(), 0, b"x")
    assert await workshop.documents.delete(uploader(gone), gone)  # and its event is lost
    await workshop.execute("DELETE FROM passages WHERE document_id = $1 AND position = 2", short.id)
    await workshop.execute("UPDATE documents SET passages = 2 WHERE id = $1", short.id)
    [index] = await workshop.indexes.live()
    await index.rows.remove(lost.tenant_id, lost.id)
    [*_, last] = [each.passage_id async for rows in index.rows.all() for each in rows if each.document_id == part.id]
    await index.rows.delete([last])
    failed = await workshop.upload("broken")
    await workshop.documents.begin_indexing(failed.tenant_id, failed.id)
    await workshop.documents.add_passages(failed, [Passage(0, "left")])
    await workshop.execute("UPDATE documents SET state = 'failed' WHERE id = $1", failed.id)
    await write(workshop, failed, "left")
    await workshop.execute("UPDATE usage SET documents = 77 WHERE tenant_id = $1", good.tenant_id)

    assert await workshop.reconcile() == Mended(rows=2 + 3 + 1 + 1, objects=3, passages=1, documents=2, organisations=1)
    assert await workshop.reconcile() == NOTHING
    for document in (good, lost, part):
        assert await workshop.rows(document) == 3
    assert await workshop.rows(short) == 2
    found = await index.rows.nearest(lost.tenant_id, vector_of("two"), 10)
    assert len(found) == 3


async def test_what_is_being_indexed_is_left_alone(workshop: Workshop) -> None:
    document = await workshop.upload(*(f"line {number}" for number in range(80)))
    workshop.embedding.gate.clear()
    indexing = asyncio.create_task(workshop.indexing.index(document.tenant_id, document.id))
    await workshop.embedding.reached.wait()
    begun = await workshop.documents.find(document.tenant_id, document.id)
    assert begun
    await write(workshop, begun, "written", "before", "its passages")
    assert await workshop.reconcile() == NOTHING
    workshop.embedding.gate.set()
    await indexing
    assert await workshop.reconcile() == NOTHING
    assert await workshop.rows(replace(document, progress=Progress(passages=80))) == 80


async def test_an_upload_under_way_is_left_alone(workshop: Workshop) -> None:
    patient = Reconcile(workshop.record, workshop.indexes, workshop.originals, workshop.keeper)
    member, document_id = a_member(), uuid4()
    await workshop.originals.put(member.tenant_id, document_id, BytesIO(b"the bytes come before the record"))
    assert await patient() == NOTHING
    await workshop.uploads.add_document(member, document_id, a_file())
    assert await workshop.reconcile() == NOTHING
    upload = await workshop.uploads.begin(member, uuid4(), a_file(b"in chunks"))
    await workshop.originals.put_chunk(member.tenant_id, upload.id, 0, b"in chunks")
    await workshop.originals.put(member.tenant_id, upload.id, BytesIO(b"in chunks"))  # finished, and killed then
    assert await workshop.reconcile() == NOTHING


async def test_a_look_beside_a_busy_service_takes_nothing_away(workshop: Workshop) -> None:
    kept: list[Document] = []

    async def come_and_go(number: int) -> None:
        document = await workshop.indexed(f"one {number}", "two", "three")
        if number % 3:
            kept.append(document)
        else:
            assert await workshop.documents.delete(uploader(document), document)
            await workshop.indexing.remove(document.tenant_id, document.id)

    async def look() -> None:
        for _ in range(5):
            await Reconcile(workshop.record, workshop.indexes, workshop.originals, workshop.keeper)()

    await asyncio.gather(look(), *map(come_and_go, range(12)))
    assert await workshop.reconcile() == NOTHING
    for document in kept:
        assert await workshop.rows(document) == 3
        assert b"".join([part async for part in workshop.originals.read(document.tenant_id, document.id)])


async def test_a_lost_index_is_built_from_the_record(workshop: Workshop) -> None:
    documents: Sequence[Document] = [await workshop.indexed("cats", "dogs") for _ in range(3)]
    [index] = await workshop.indexes.live()
    await workshop.stores.drop(index.version.id)
    await workshop.keeper.step()
    for document in documents:
        assert await workshop.rows(document) == 2
    assert await workshop.reconcile() == NOTHING
