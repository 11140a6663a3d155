"""The index adapter on a real Milvus."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.knowledge.document import Document
from services.knowledge.index import COLLECTION, PassageIndex, where
from services.knowledge.passages import Passage, passage_id
from services.shared.errors import Reason, Unavailable
from stack.catalog import running
from stack.mesh import Mesh
from tests.knowledge.conftest import a_file
from tests.knowledge.fakes import vector_of

HOSTILE = (
    "",
    '"',
    "'",
    "\\",
    '\\"',
    '" or tenant_id != "',
    '" or 1 == 1 or tenant_id == "',
    "' or ''=='",
    '\\" or tenant_id like "%',
    "\n",
    "\r\n\t",
    "\x00",
    "%",
    "{tenant}",
    "tenant_id",
    "null",
    "מדריך 你好 🤖 \u202e",
    "a" * 36,
)


@pytest.fixture(scope="module")
async def index(stores: Mesh) -> AsyncIterator[PassageIndex]:
    async with PassageIndex(f"http://{stores.address('milvus')}") as index:
        yield index


def a_document(tenant_id: UUID | None = None) -> Document:
    now = datetime.now(UTC)
    return Document(id=uuid4(), tenant_id=tenant_id or uuid4(), user_id=uuid4(), file=a_file(), create_time=now)


async def write(index: PassageIndex, document: Document, *texts: str) -> list[UUID]:
    passages = [Passage(position, text) for position, text in enumerate(texts)]
    await index.write(document, passages, [vector_of(text) for text in texts])
    return [passage_id(document.id, passage.position) for passage in passages]


async def find(index: PassageIndex, tenant_id: UUID, text: str, limit: int = 10) -> Sequence[UUID]:
    return await index.search(tenant_id, text, vector_of(text), limit)


async def test_the_passage_that_fits_best_comes_first(index: PassageIndex) -> None:
    document = a_document()
    cats, dogs, _ = await write(index, document, "cats sleep all day", "dogs bark at night", "stars shine")
    assert (await find(index, document.tenant_id, "who sleep all day"))[0] == cats
    assert (await find(index, document.tenant_id, "DOGS that bark"))[0] == dogs
    assert len(await find(index, document.tenant_id, "dogs", limit=2)) == 2


async def test_words_are_found_that_the_model_knows_nothing_of(index: PassageIndex) -> None:
    document = a_document()
    _, wanted = await write(index, document, "an ordinary passage", "the part XK-4711 is out of stock")
    unrelated = vector_of("ordinary an passage")
    assert wanted in await index.search(document.tenant_id, "xk 4711", unrelated, 2)


async def test_another_organisation_finds_nothing(index: PassageIndex) -> None:
    document = a_document()
    own = await write(index, document, "the secret plan")
    assert await find(index, document.tenant_id, "the secret plan") == own
    assert await find(index, uuid4(), "the secret plan") == []


async def test_writing_again_replaces(index: PassageIndex) -> None:
    document = a_document()
    first = await write(index, document, "old words", "more old words")
    assert await write(index, document, "new words", "more new words") == first
    assert sorted(await find(index, document.tenant_id, "new words")) == sorted(first)


async def test_removing_a_document_leaves_the_others(index: PassageIndex) -> None:
    removed, kept = a_document(), a_document()
    kept = a_document(removed.tenant_id)
    await write(index, removed, *(f"removed passage {number}" for number in range(300)))
    left = await write(index, kept, "kept passage")
    for _ in range(2):
        await index.remove(removed.tenant_id, removed.id)
    assert await find(index, removed.tenant_id, "passage") == left


async def test_removing_under_another_organisation_removes_nothing(index: PassageIndex) -> None:
    document = a_document()
    own = await write(index, document, "passage")
    await index.remove(uuid4(), document.id)
    assert await find(index, document.tenant_id, "passage") == own


@pytest.mark.parametrize("text", [*HOSTILE[1:], "!" * 2000, "x" * 2000, "word " * 400])
async def test_any_text_can_be_searched(index: PassageIndex, text: str) -> None:
    document = a_document()
    own = await write(index, document, "some passage", "another passage")
    assert set(await find(index, document.tenant_id, text)) <= set(own)


@pytest.mark.parametrize("text", ["\U0001f916" * 1200, "מ" * 1200, "\U00010348" * 1200])
async def test_the_longest_passage_fits(index: PassageIndex, text: str) -> None:
    document = a_document()
    passage = Passage(0, text, headings=("\U0001f916" * 200,) * 8)
    await index.write(document, [passage], [vector_of(text)])
    assert await find(index, document.tenant_id, text[:100]) == [passage_id(document.id, 0)]


async def test_hostile_values_match_themselves_and_nothing_else(index: PassageIndex) -> None:
    """The filter is given rows whose organisation has a hostile name; each name finds its own row alone."""
    client = index._client  # the port only takes UUIDs; this is about the one function that builds expressions
    await index.probe()
    rows = [
        {
            "passage_id": str(uuid4()),
            "tenant_id": value,
            "document_id": "hostile",
            "text": "row",
            "dense": vector_of("row"),
        }
        for value in HOSTILE
    ]
    await client.upsert(COLLECTION, rows)
    try:
        for row in rows:
            own = where(document_id="hostile", tenant_id=row["tenant_id"])
            found = await client.query(COLLECTION, filter=own, output_fields=["tenant_id"])
            assert [hit["passage_id"] for hit in found] == [row["passage_id"]], repr(row["tenant_id"])
        everything = await client.query(COLLECTION, filter=where(document_id="hostile"), output_fields=["tenant_id"])
        assert len(everything) == len(rows)
    finally:
        await client.delete(COLLECTION, filter=where(document_id="hostile"))


async def test_the_collection_survives_a_restart_of_milvus(tmp_path: Path) -> None:
    document = a_document()
    async with running(tmp_path, "milvus") as mesh:
        url = f"http://{mesh.address('milvus')}"
        async with PassageIndex(url) as index:
            own = await write(index, document, "passage")
    async with PassageIndex(url) as index:
        with pytest.raises(Unavailable) as refused:
            await find(index, document.tenant_id, "passage")
        assert refused.value.reason is Reason.SEARCH_UNAVAILABLE
        async with running(tmp_path, "milvus"):
            async with asyncio.timeout(20):
                while not await is_open(index):
                    await asyncio.sleep(0.1)
            assert await find(index, document.tenant_id, "passage") == own


async def is_open(index: PassageIndex) -> bool:
    try:
        await index.probe()
    except Unavailable:
        return False
    return True
