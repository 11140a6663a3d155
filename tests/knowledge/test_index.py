"""The index adapter on a real Milvus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.knowledge.document import Document
from services.knowledge.expression import where
from services.knowledge.index import PassageIndex, PassageIndexes
from services.knowledge.lexical import Rarity, passage_vector
from services.knowledge.passages import Passage, passage_id
from services.shared.errors import Reason, Unavailable
from stack.catalog import running
from stack.mesh import Mesh
from tests.knowledge.conftest import a_file
from tests.knowledge.fakes import vector_of
from tests.knowledge.index_fakes import FIRST

Find = Callable[..., Awaitable[list[UUID]]]

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
    async with PassageIndexes(f"http://{stores.address('milvus')}") as indexes:
        await indexes.create(FIRST)
        yield indexes.of(FIRST)


def a_document(tenant_id: UUID | None = None) -> Document:
    now = datetime.now(UTC)
    return Document(id=uuid4(), tenant_id=tenant_id or uuid4(), user_id=uuid4(), file=a_file(), create_time=now)


async def write(index: PassageIndex, document: Document, *texts: str) -> list[UUID]:
    passages = [Passage(position, text) for position, text in enumerate(texts)]
    await index.write(document, passages, [vector_of(text) for text in texts])
    return [passage_id(document.id, passage.position) for passage in passages]


async def near(index: PassageIndex, tenant_id: UUID, text: str, limit: int = 10) -> list[UUID]:
    return list(await index.nearest(tenant_id, vector_of(text), limit))


async def sharing(index: PassageIndex, tenant_id: UUID, text: str, limit: int = 10) -> list[UUID]:
    return list(await index.sharing(tenant_id, Rarity().question_vector(text), limit))


@pytest.fixture(params=[near, sharing], ids=["near", "sharing"])
def find(request: pytest.FixtureRequest) -> Find:
    """Each side of the search."""
    return request.param


async def test_the_passage_that_fits_best_comes_first(index: PassageIndex, find: Find) -> None:
    document = a_document()
    cats, dogs, _ = await write(index, document, "cats sleep all day", "dogs bark at night", "stars shine")
    assert (await find(index, document.tenant_id, "who sleep all day"))[0] == cats
    assert (await find(index, document.tenant_id, "DOGS that bark"))[0] == dogs
    assert len(await find(index, document.tenant_id, "cats dogs stars", limit=2)) == 2


async def test_scores_are_cosines_and_products_of_terms(index: PassageIndex) -> None:
    document = a_document()
    [own] = await write(index, document, "cats sleep")
    near = await index.nearest(document.tenant_id, vector_of("cats"), 10)
    assert near == {own: pytest.approx(2**-0.5)}
    [(cats, rare), (_, common)] = passage_vector("cats sleep").items()
    assert await index.sharing(document.tenant_id, {cats: 3.0, 7: 5.0}, 10) == {own: pytest.approx(3 * rare)}
    assert rare == common


async def test_a_passage_without_terms_is_found_by_its_vector(index: PassageIndex) -> None:
    document = a_document()
    own = await write(index, document, "!?")
    assert await near(index, document.tenant_id, "!?") == own


async def test_scores_do_not_depend_on_other_organisations(index: PassageIndex) -> None:
    """Rarity made by the index would count their passages, and so tell of them."""
    document, question = a_document(), Rarity().question_vector("the merger with Globex")
    await write(index, document, "the merger with Globex is signed")
    before = await index.sharing(document.tenant_id, question, 10)
    await write(index, a_document(), *(f"Globex merger {number}" for number in range(40)))
    assert await index.sharing(document.tenant_id, question, 10) == before != {}


async def test_another_organisation_finds_nothing(index: PassageIndex, find: Find) -> None:
    document = a_document()
    own = await write(index, document, "the secret plan")
    assert await find(index, document.tenant_id, "the secret plan") == own
    assert await find(index, uuid4(), "the secret plan") == []


async def test_writing_again_replaces(index: PassageIndex, find: Find) -> None:
    document = a_document()
    first = await write(index, document, "old words", "more old words")
    assert await write(index, document, "new words", "more new words") == first
    assert sorted(await find(index, document.tenant_id, "new words")) == sorted(first)


async def test_removing_a_document_leaves_the_others(index: PassageIndex, find: Find) -> None:
    removed, kept = a_document(), a_document()
    kept = a_document(removed.tenant_id)
    await write(index, removed, *(f"removed passage {number}" for number in range(300)))
    left = await write(index, kept, "kept passage")
    for _ in range(2):
        await index.remove(removed.tenant_id, removed.id)
    assert await find(index, removed.tenant_id, "passage") == left


async def test_removing_under_another_organisation_removes_nothing(index: PassageIndex, find: Find) -> None:
    document = a_document()
    own = await write(index, document, "passage")
    await index.remove(uuid4(), document.id)
    assert await find(index, document.tenant_id, "passage") == own


@pytest.mark.parametrize("text", [*HOSTILE[1:], "!" * 2000, "x" * 2000, "word " * 400])
async def test_any_text_can_be_searched(index: PassageIndex, text: str) -> None:
    document = a_document()
    own = await write(index, document, "some passage", "another passage")
    assert set(await near(index, document.tenant_id, text)) <= set(own)
    assert set(await sharing(index, document.tenant_id, text)) <= set(own)


@pytest.mark.parametrize("text", ["\U0001f916" * 1200, "מ" * 1200, "\U00010348" * 1200])
async def test_the_longest_passage_fits(index: PassageIndex, text: str) -> None:
    document = a_document()
    passage = Passage(0, text, headings=("\U0001f916" * 200,) * 8)
    await index.write(document, [passage], [vector_of(text)])
    assert await near(index, document.tenant_id, text[:100]) == [passage_id(document.id, 0)]


async def test_hostile_values_match_themselves_and_nothing_else(index: PassageIndex) -> None:
    """The filter is given rows whose organisation has a hostile name; each name finds its own row alone."""
    client = index._client  # the port only takes UUIDs; this is about the one function that builds expressions
    await index.probe()
    rows = [
        {
            "passage_id": str(uuid4()),
            "tenant_id": value,
            "document_id": "hostile",
            "reader": "",
            "collection": "",
            "content_type": "",
            "create_time": 0,
            "dense": vector_of("row"),
            "sparse": {1: 1.0},
        }
        for value in HOSTILE
    ]
    await client.upsert(index._name, rows)
    try:
        for row in rows:
            own = where(document_id="hostile", tenant_id=row["tenant_id"])
            found = await client.query(index._name, filter=own, output_fields=["tenant_id"])
            assert [hit["passage_id"] for hit in found] == [row["passage_id"]], repr(row["tenant_id"])
        everything = await client.query(index._name, filter=where(document_id="hostile"), output_fields=["tenant_id"])
        assert len(everything) == len(rows)
    finally:
        await client.delete(index._name, filter=where(document_id="hostile"))


async def test_the_collection_survives_a_restart_of_milvus(tmp_path: Path) -> None:
    document = a_document()
    async with running(tmp_path, "milvus") as mesh:
        url = f"http://{mesh.address('milvus')}"
        async with PassageIndexes(url) as indexes:
            await indexes.create(FIRST)
            own = await write(indexes.of(FIRST), document, "passage")
    async with PassageIndexes(url) as indexes:
        index = indexes.of(FIRST)
        with pytest.raises(Unavailable) as refused:
            await near(index, document.tenant_id, "passage")
        assert refused.value.reason is Reason.SEARCH_UNAVAILABLE
        async with running(tmp_path, "milvus"):
            async with asyncio.timeout(20):
                while not await is_open(index):
                    await asyncio.sleep(0.1)
            assert await near(index, document.tenant_id, "passage") == own


async def is_open(index: PassageIndex) -> bool:
    try:
        await index.probe()
    except Unavailable:
        return False
    return True


async def test_what_was_warmed_is_found(index: PassageIndex, find: Find) -> None:
    document = a_document()
    own = await write(index, document, "cats sleep")
    await index.warm()
    assert await find(index, document.tenant_id, "cats") == own
