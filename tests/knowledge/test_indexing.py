"""Indexing, removal and search, on fakes."""

import asyncio
from dataclasses import dataclass, field
from io import BytesIO
from uuid import uuid4

import pytest

from services.knowledge.document import Document, DocumentState, Member
from services.knowledge.indexes.copying import Copying
from services.knowledge.indexing import BATCH, Indexing
from services.knowledge.placing import Placing
from services.knowledge.search import Search
from services.knowledge.vocabulary import Vocabulary
from services.shared.errors import Reason, Unavailable
from tests.knowledge.conftest import a_file, a_member, uploader
from tests.knowledge.fakes import FakeEmbedding, FakeExtraction, FakeIndex, FakeOriginals, FakeRecord
from tests.knowledge.index_fakes import FakeIndexRecord, indexes_of


@dataclass
class Mesh:
    """Indexing and search, with what they work on."""

    record: FakeRecord = field(default_factory=FakeRecord)
    originals: FakeOriginals = field(default_factory=FakeOriginals)
    embedding: FakeEmbedding = field(default_factory=FakeEmbedding)
    found: FakeIndex = field(default_factory=FakeIndex)

    def __post_init__(self) -> None:
        indexes = indexes_of(self.record, self.embedding, self.found)
        self.placing, copying = Placing(self.record, indexes), Copying(FakeIndexRecord(self.record))
        self.indexing = Indexing(self.record, self.originals, FakeExtraction(), indexes, self.placing, copying)
        self.search = Search(indexes, Vocabulary(self.record), self.record)

    async def upload(self, *lines: str, member: Member | None = None) -> Document:
        member, content = member or a_member(), "\n".join(lines).encode()
        document = await self.record.add_document(member, uuid4(), a_file(content))
        await self.originals.put(member.tenant_id, document.id, BytesIO(content))
        return document

    async def index(self, document: Document) -> None:
        await self.indexing.index(document.tenant_id, document.id)

    async def state(self, document: Document) -> DocumentState:
        found = await self.record.find(document.tenant_id, document.id)
        assert found
        return found.state


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


async def test_an_indexed_document_can_be_found(mesh: Mesh) -> None:
    document = await mesh.upload("cats sleep", "dogs bark", "stars shine")
    await mesh.index(document)
    now = await mesh.record.find(document.tenant_id, document.id)
    assert now
    assert (now.state, now.content_type) == (DocumentState.INDEXED, "text/plain")
    assert (now.progress.passages, now.progress.passages_indexed) == (3, 3)
    [first, *_] = await mesh.search(document.tenant_id, "dogs bark", 1)
    assert first.passage.text.startswith("dogs bark")
    assert mesh.record.events == [("DocumentUploaded", document.id), ("DocumentIndexed", document.id)]


async def test_passages_are_embedded_in_batches(mesh: Mesh) -> None:
    await mesh.index(await mesh.upload(*(f"line {number}" for number in range(2 * BATCH + 5))))
    assert sorted(mesh.embedding.calls) == [5, BATCH, BATCH]


async def test_a_repeated_event_changes_nothing(mesh: Mesh) -> None:
    document = await mesh.upload("cats sleep")
    await mesh.index(document)
    events, calls = list(mesh.record.events), list(mesh.embedding.calls)
    await mesh.index(document)
    assert (mesh.record.events, mesh.embedding.calls) == (events, calls)


async def test_a_document_that_can_not_be_read_fails_at_once(mesh: Mesh) -> None:
    document = await mesh.upload("broken file")
    await mesh.index(document)
    now = await mesh.record.find(document.tenant_id, document.id)
    assert now
    assert now.failure
    assert (now.state, now.failure.reason) == (DocumentState.FAILED, Reason.DOCUMENT_CORRUPT)
    assert mesh.record.events[-1] == ("DocumentFailed", document.id)


@pytest.mark.parametrize("part", ["embedding", "index", "originals"])
async def test_what_is_down_is_tried_again_without_doubling(mesh: Mesh, part: str) -> None:
    document = await mesh.upload(*(f"line {number}" for number in range(2 * BATCH)))
    mesh.embedding.failures = int(part == "embedding")
    mesh.found.down, mesh.originals.down = part == "index", part == "originals"
    with pytest.raises((Unavailable, ExceptionGroup)):
        await mesh.index(document)
    assert await mesh.state(document) is DocumentState.INDEXING
    mesh.found.down = mesh.originals.down = False
    await mesh.index(document)
    assert await mesh.state(document) is DocumentState.INDEXED
    assert len(mesh.found.rows) == 2 * BATCH
    assert [event for event, _ in mesh.record.events] == ["DocumentUploaded", "DocumentIndexed"]


async def test_giving_up_fails_the_document_and_leaves_nothing_to_find(mesh: Mesh) -> None:
    document = await mesh.upload(*(f"line {number}" for number in range(5 * BATCH)))
    mesh.embedding.failures = 1
    with pytest.raises(ExceptionGroup):
        await mesh.index(document)
    await mesh.indexing.give_up(document.tenant_id, document.id)
    now = await mesh.record.find(document.tenant_id, document.id)
    assert now
    assert now.failure
    assert (now.state, now.failure.reason) == (DocumentState.FAILED, Reason.INDEXING_FAILED)
    assert mesh.found.rows == {}
    await mesh.indexing.give_up(document.tenant_id, uuid4())


async def test_giving_up_does_not_wait_for_the_index(mesh: Mesh) -> None:
    document = await mesh.upload("line")
    mesh.found.down = True
    await mesh.indexing.give_up(document.tenant_id, document.id)
    assert await mesh.state(document) is DocumentState.FAILED


@pytest.mark.parametrize("removed_first", [True, False])
async def test_a_document_deleted_while_it_is_indexed_leaves_no_orphan(mesh: Mesh, removed_first: bool) -> None:
    document = await mesh.upload(*(f"line {number}" for number in range(5 * BATCH)))
    mesh.embedding.gate.clear()
    indexing = asyncio.create_task(mesh.index(document))
    await mesh.embedding.reached.wait()
    assert await mesh.record.delete(uploader(document), document)
    if removed_first:
        await mesh.indexing.remove(document.tenant_id, document.id)
    mesh.embedding.gate.set()
    await indexing
    if not removed_first:
        await mesh.indexing.remove(document.tenant_id, document.id)
    assert (mesh.found.rows, mesh.originals.objects) == ({}, {})
    assert sum(mesh.embedding.calls) < 5 * BATCH
    assert [event for event, _ in mesh.record.events] == ["DocumentUploaded", "DocumentDeleted"]


async def test_an_event_of_a_deleted_document_removes_what_a_crash_left(mesh: Mesh) -> None:
    document = await mesh.upload("line")
    await mesh.index(document)
    await mesh.record.delete(uploader(document), document)
    await mesh.index(document)
    assert mesh.found.rows == {}


async def test_removal_can_be_repeated(mesh: Mesh) -> None:
    document, kept = await mesh.upload("gone"), await mesh.upload("kept")
    await mesh.index(document)
    await mesh.index(kept)
    await mesh.record.delete(uploader(document), document)
    for _ in range(2):
        await mesh.indexing.remove(document.tenant_id, document.id)
    assert {document.id for document, _ in mesh.found.rows.values()} == {kept.id}
    assert list(mesh.originals.objects) == [(kept.tenant_id, kept.id)]


async def test_search_asks_each_part_once(mesh: Mesh) -> None:
    document = await mesh.upload("cats", "dogs")
    await mesh.index(document)
    mesh.embedding.calls.clear()
    assert len(await mesh.search(document.tenant_id, " cats\u200b ", 1)) == 1
    assert mesh.embedding.calls == [1]
    assert mesh.found.searches == [(document.tenant_id, "dense"), (document.tenant_id, "sparse")]


async def test_search_for_nothing_that_can_be_seen_finds_nothing(mesh: Mesh) -> None:
    assert await mesh.search(uuid4(), "\x00\u200b \n", 5) == []
    assert mesh.embedding.calls == []


async def test_search_never_leaves_the_organisation(mesh: Mesh) -> None:
    document = await mesh.upload("the secret plan")
    await mesh.index(document)
    assert await mesh.search(uuid4(), "the secret plan", 20) == []


async def test_deleted_documents_do_not_use_up_the_places_of_others(mesh: Mesh) -> None:
    member = a_member()
    gone, kept = await mesh.upload("one plan", "two plan", member=member), await mesh.upload("plan", member=member)
    for document in (gone, kept):
        await mesh.index(document)
    await mesh.record.delete(uploader(gone), gone)
    assert [found.document_id for found in await mesh.search(member.tenant_id, "one plan", 1)] == [kept.id]
