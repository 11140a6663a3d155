"""Rows follow documents that are shared, hidden and moved: on fakes, and on a real Milvus."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from uuid import uuid4

import pytest

from services.knowledge.document import Change, Document, Progress, Visibility
from services.knowledge.filters import Filters
from services.knowledge.index import PassageIndex, PassageIndexes
from services.knowledge.indexing import BATCH
from services.knowledge.lexical import Rarity
from services.knowledge.passages import Passage, passage_id
from stack.mesh import Mesh as Stack
from tests.knowledge.conftest import a_file, uploader
from tests.knowledge.fakes import vector_of
from tests.knowledge.index_fakes import FIRST
from tests.knowledge.test_indexing import Mesh

PRIVATE, SHARED = Change(visibility=Visibility.PRIVATE), Change(visibility=Visibility.ORGANISATION)
MOVED = Change(collection="plans")


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def placed(mesh: Mesh) -> set[tuple[Visibility, str]]:
    return {(row.file.visibility, row.file.collection) for row, _ in mesh.found.rows.values()}


async def change(mesh: Mesh, document: Document, *changes: Change) -> None:
    for each in changes:
        assert await mesh.record.update(uploader(document), document.id, each)


async def test_rows_follow_the_record_in_whatever_order_events_come(mesh: Mesh) -> None:
    document = await mesh.upload("cats", "dogs")
    await mesh.index(document)
    placing = mesh.placing
    await change(mesh, document, PRIVATE, MOVED)
    for _ in range(2):
        await placing.place(document.tenant_id, document.id)
        assert placed(mesh) == {(Visibility.PRIVATE, "plans")}
    await change(mesh, document, SHARED)
    await asyncio.gather(*(placing.place(document.tenant_id, document.id) for _ in range(3)))
    assert placed(mesh) == {(Visibility.ORGANISATION, "plans")}


async def test_a_document_that_is_hidden_while_it_is_indexed_is_hidden_as_a_whole(mesh: Mesh) -> None:
    document = await mesh.upload(*(f"line {number}" for number in range(3 * BATCH)))
    mesh.embedding.gate.clear()
    indexing = asyncio.create_task(mesh.index(document))
    await mesh.embedding.reached.wait()
    await change(mesh, document, PRIVATE)
    await mesh.placing.place(document.tenant_id, document.id)
    mesh.embedding.gate.set()
    await indexing
    assert len(mesh.found.rows) == 3 * BATCH
    assert placed(mesh) == {(Visibility.PRIVATE, "")}


async def test_placing_a_deleted_document_leaves_no_rows(mesh: Mesh) -> None:
    document = await mesh.upload("cats")
    await mesh.index(document)
    await mesh.record.delete(uploader(document), document)
    assert await mesh.placing.place(document.tenant_id, document.id) is None
    assert mesh.found.rows == {}


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_races_rows_say_what_the_record_says(mesh: Mesh, seed: int) -> None:
    """Indexing, changes, deletion and the consumers of both, interleaved at each of their steps."""
    random = Random(seed)
    document = await mesh.upload(*(f"line {number}" for number in range(2 * BATCH)))
    gone = seed % 3 == 0

    def stumbling(port: object, *names: str) -> None:
        for name in names:
            setattr(port, name, _stumbling(getattr(port, name), random))

    stumbling(mesh.record, "find", "update", "add_passages", "complete")
    stumbling(mesh.found, "write", "place", "remove")

    async def update(each: Change) -> None:
        if await mesh.record.update(uploader(document), document.id, each):
            await mesh.placing.place(document.tenant_id, document.id)

    async def delete() -> None:
        await mesh.record.delete(uploader(document), document)
        await mesh.indexing.remove(document.tenant_id, document.id)

    work = [mesh.index(document), *map(update, random.sample([PRIVATE, SHARED, MOVED, PRIVATE], 4))]
    await asyncio.gather(*work, *([delete()] if gone else []))
    now = await mesh.record.find(document.tenant_id, document.id)
    assert placed(mesh) == ({(now.file.visibility, now.file.collection)} if now else set())
    assert len(mesh.found.rows) == (2 * BATCH if now else 0)


def _stumbling(method, random: Random):
    async def called(*arguments: object) -> object:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        answer = await method(*arguments)
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        return answer

    return called


@pytest.fixture(scope="module")
async def index(stores: Stack) -> AsyncIterator[PassageIndex]:
    async with PassageIndexes(f"http://{stores.address('milvus')}") as indexes:
        await indexes.create(FIRST)
        yield indexes.of(FIRST)


def moved(document: Document, **changed: object) -> Document:
    return replace(document, file=replace(document.file, **changed))


async def test_milvus_keeps_the_vectors_and_changes_the_place(index: PassageIndex) -> None:
    texts = [f"passage {number}" for number in range(250)]
    document = Document(
        id=uuid4(),
        tenant_id=uuid4(),
        user_id=uuid4(),
        file=a_file(),
        content_type="text/plain",
        progress=Progress(passages=len(texts)),
        create_time=datetime.now(UTC),
    )
    other = replace(document, id=uuid4(), progress=Progress(passages=1))
    passages = [Passage(position, text) for position, text in enumerate(texts)]
    await index.write(document, passages, [vector_of(text) for text in texts])
    await index.write(other, passages[:1], [vector_of("else")])
    await index.warm()
    before = await index.nearest(document.tenant_id, vector_of("passage 77"), 300)
    terms = await index.sharing(document.tenant_id, _terms("passage 77"), 300)

    hidden = moved(document, visibility=Visibility.PRIVATE, collection='"plans" or \\')
    for _ in range(2):
        await index.place(hidden)
    assert [*await index.nearest(document.tenant_id, vector_of("passage 77"), 300)] == [passage_id(other.id, 0)]
    assert await index.nearest(document.tenant_id, vector_of("passage 77"), 300, document.user_id) == before
    assert await index.sharing(document.tenant_id, _terms("passage 77"), 300, document.user_id) == terms
    own = Filters(collections=(hidden.file.collection,))
    assert len(await index.nearest(document.tenant_id, vector_of("passage 77"), 300, document.user_id, own)) == 250

    await index.place(document)
    assert await index.nearest(document.tenant_id, vector_of("passage 77"), 300) == before


async def test_placing_brings_no_removed_row_back(index: PassageIndex) -> None:
    document = Document(
        id=uuid4(),
        tenant_id=uuid4(),
        user_id=uuid4(),
        file=a_file(),
        progress=Progress(passages=3),
        create_time=datetime.now(UTC),
    )
    await index.write(document, [Passage(0, "here")], [vector_of("here")])
    stranger = replace(moved(document, collection="theirs"), tenant_id=uuid4())
    await index.place(stranger)
    assert await count(index, document) == {""}
    await index.remove(document.tenant_id, document.id)
    await index.place(moved(document, collection="plans"))
    assert await count(index, document) == set()


async def count(index: PassageIndex, document: Document) -> set[str]:
    rows = await index._client.get(index._name, [str(passage_id(document.id, 0))], output_fields=["collection"])
    return {row["collection"] for row in rows}


def _terms(text: str) -> dict[int, float]:
    return dict(Rarity().question_vector(text))
