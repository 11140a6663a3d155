"""A new index beside the old one, on fakes: what is in it, who meets whom, and what a crash leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random
from uuid import uuid4

import pytest

from services.knowledge.document import Change, Document, Visibility
from services.knowledge.indexes.copying import Copying
from services.knowledge.indexes.live import Indexes
from services.knowledge.indexes.rebuild import Rebuild
from services.knowledge.indexes.rebuilding import Progress, Rebuilding
from services.knowledge.indexes.rereading import Rereading
from services.knowledge.indexes.version import Index, IndexState, IndexVersion
from services.knowledge.indexing import BATCH, Indexing
from services.knowledge.placing import Placing
from services.knowledge.search import Search, Vector
from services.knowledge.vocabulary import Vocabulary
from services.shared.errors import Conflict, Invalid, Reason, Unavailable, WrongState
from tests.knowledge.conftest import a_member, uploader
from tests.knowledge.fakes import FakeChanges, FakeEmbedding, FakeExtraction, vector_of
from tests.knowledge.index_fakes import FIRST, FakeIndexRecord, FakeModels, FakeStores
from tests.knowledge.test_indexing import Mesh

PRIVATE, MOVED = Change(visibility=Visibility.PRIVATE), Change(collection="plans")


class SmallModel(FakeEmbedding):
    """Another model: half of the dimensions."""

    async def embed(self, texts: list[str]) -> list[Vector]:
        await super().embed(texts)
        return [vector_of(text)[:192] for text in texts]


class Library(Mesh):
    """Indexing, search and rebuilding, with as many indexes as there are."""

    def __post_init__(self) -> None:
        self.small, self.changes = SmallModel(), FakeChanges()
        self.indexes_record, self.stores = FakeIndexRecord(self.record, self.changes), FakeStores(self.found)
        models = {"embedding": self.embedding, "small": self.small}

        def opened(version: IndexVersion) -> Index:
            return Index(version, models[version.embedding_model], self.stores.of(version))

        self.indexes = Indexes(self.indexes_record, opened, self.changes)
        self.placing, self.copying = Placing(self.record, self.indexes), Copying(self.indexes_record)
        self.indexing = Indexing(
            self.record, self.originals, FakeExtraction(), self.indexes, self.placing, self.copying
        )
        self.search = Search(self.indexes, Vocabulary(self.record), self.record)
        self.rebuilding = Rebuilding(self.indexes_record, FakeModels(small=192), self.changes)
        self.rereading = Rereading(self.indexes_record, self.originals, FakeExtraction(), self.indexes, self.copying)
        self.keeper = self.a_keeper()

    def a_keeper(self, grace_s: float = 0.0) -> Rebuild:
        return Rebuild(
            self.indexes_record,
            self.stores,
            self.indexes,
            self.placing,
            self.copying,
            self.rereading,
            self.changes,
            grace_s=grace_s,
        )

    async def begin(self, model: str = "small") -> int:
        version = await self.indexes_record.begin(uuid4(), model, 192)
        assert version
        return version.id

    async def active(self) -> int:
        [active] = [v.id for v in await self.indexes_record.live() if v.state is IndexState.ACTIVE]
        return active

    async def delete(self, document: Document) -> None:
        """With what the consumer of the event does."""
        await self.record.delete(uploader(document), document)
        await self.indexing.remove(document.tenant_id, document.id)

    async def change(self, document: Document, change: Change) -> None:
        if await self.record.update(uploader(document), document.id, change):
            await self.placing.place(document.tenant_id, document.id)

    async def agrees(self, index_id: int) -> None:
        """Every living document is in the index as a whole, where the record says, and nothing else is."""
        rows = self.stores.indexes[index_id].rows
        wanted = {}
        for document in self.record.documents():
            for key in (position for position in self.record.passages_of(document.id)):
                wanted[document.id, key] = (document.file.visibility, document.file.collection)
        assert len(rows) == len(wanted)
        assert {row.id for row, _ in rows.values()} == {document_id for document_id, _ in wanted}
        for row, _ in rows.values():
            assert (row.file.visibility, row.file.collection) == wanted[row.id, 0]


@pytest.fixture
def library() -> Library:
    return Library()


async def filled(library: Library, documents: int = 6, lines: int = BATCH + 3) -> list[Document]:
    member = a_member()
    added = []
    for number in range(documents):
        text = (f"plan {number} line {line}" for line in range(lines))
        added.append(await library.upload(*text, member=member))
        await library.index(added[-1])
    return added


async def test_a_rebuild_brings_every_document_and_switches(library: Library) -> None:
    [document, *_] = await filled(library)
    new = await library.begin()
    await library.keeper.step()
    assert await library.active() == new
    await library.agrees(new)
    assert library.stores.indexes[new].dimensions == {192}
    [found, *_] = await library.search(document.tenant_id, "plan 0 line 7", 1)
    assert found.passage.text.startswith("plan 0 line 7")


async def test_the_old_index_is_dropped_after_a_grace(library: Library) -> None:
    await filled(library, 1)
    patient = library.a_keeper(grace_s=60.0)
    new = await library.begin()
    for _ in range(2):
        await patient.step()
        assert set(library.stores.indexes) == {FIRST.id, new}
    await library.keeper.step()
    assert set(library.stores.indexes) == set(library.indexes_record.versions) == {new}


async def test_a_search_that_was_not_told_finds_the_new_index(library: Library) -> None:
    [document] = await filled(library, 1)
    tenant_id = document.tenant_id
    assert await library.search(tenant_id, "plan 0 line 7", 1)
    await library.begin()
    stranger = library.a_keeper()  # another replica's
    stranger._indexes = Indexes(library.indexes_record, library.indexes._opened, FakeChanges())
    await stranger.step()
    library.found.down = True
    assert FIRST.id not in library.stores.indexes
    assert await library.search(tenant_id, "plan 0 line 7", 1)


async def test_what_comes_while_it_is_built_reaches_both(library: Library) -> None:
    old = await filled(library, 3)
    new = await library.begin()
    await library.stores.create(library.indexes_record.versions[new])
    fresh = await library.upload("a new plan")
    await library.index(fresh)
    await library.change(old[0], PRIVATE)
    await library.delete(old[1])
    for index_id in (FIRST.id, new):
        assert fresh.id in {row.id for row, _ in library.stores.indexes[index_id].rows.values()}
    await library.agrees(FIRST.id)
    await library.keeper.step()
    await library.agrees(new)


async def test_a_document_indexed_across_the_switch_is_in_the_new_index(library: Library) -> None:
    """It began when there was one index alone, and ends when that is not searched any more."""
    await filled(library, 2)
    late = await library.upload(*(f"late {number}" for number in range(3 * BATCH)))
    library.embedding.gate.clear()
    indexing = asyncio.create_task(library.index(late))
    await library.embedding.reached.wait()
    new = await library.begin()
    await library.a_keeper(grace_s=60.0).step()
    assert await library.active() == new
    library.embedding.gate.set()
    await indexing
    await library.agrees(new)
    assert library.record.events[-1] == ("DocumentIndexed", late.id)


@pytest.mark.parametrize("calls", range(1, 12))
async def test_a_crash_at_any_call_goes_on_where_it_was(library: Library, calls: int) -> None:
    await filled(library, 4)
    new = await library.begin()
    left = calls

    async def embed(texts: list[str]) -> list[Vector]:
        nonlocal left
        left -= 1
        if left == 0:
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "killed")
        return [vector_of(text)[:192] for text in texts]

    library.small.embed = embed
    while await library.active() != new:
        with suppress(Unavailable):
            await library.a_keeper().step()
    await library.agrees(new)
    assert left > -12


async def test_two_keepers_do_no_harm(library: Library) -> None:
    await filled(library)
    new = await library.begin()
    await asyncio.gather(*(library.a_keeper(grace_s=60.0).step() for _ in range(2)))
    assert await library.active() == new
    await library.agrees(new)


async def test_an_update_of_parley_brings_over_what_the_old_layout_held(library: Library) -> None:
    await filled(library)
    library.record.held.clear()
    library.found.rows.clear()
    await library.keeper.step()
    await library.agrees(FIRST.id)


async def test_one_document_that_the_model_refuses_stops_no_other(library: Library) -> None:
    await filled(library, 5)
    new, embed = await library.begin(), library.small.embed

    async def choosy(texts: list[str]) -> list[Vector]:
        if any("plan 3" in text for text in texts):
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "too much")
        return await embed(texts)

    library.small.embed = choosy
    with pytest.raises(Unavailable):
        await library.keeper.step()
    assert (await library.indexes_record.held(new)).documents_held == 4
    assert await library.active() == FIRST.id
    library.small.embed = embed
    await library.keeper.step()
    await library.agrees(new)


async def test_documents_are_cut_anew_from_their_originals(library: Library) -> None:
    """One got shorter, one longer, one can't be read any more, one has lost its original."""
    shorter, longer, broken, lost = await filled(library, 4, lines=4)
    contents = {shorter: b"one line", longer: b"\n".join(b"new %d" % line for line in range(9)), broken: b"broken"}
    for document, content in contents.items():
        library.originals.objects[document.tenant_id, document.id] = content
    del library.originals.objects[lost.tenant_id, lost.id]
    request = library.rebuilding.rebuild(uuid4(), "small", from_originals=True)
    new, _ = await anext(request)
    await library.a_keeper(grace_s=60.0).step()
    assert await library.active() == new.id
    for index_id in (FIRST.id, new.id):
        await library.agrees(index_id)
    counts = {each.id: each.progress.passages for each in library.record.documents()}
    assert counts == {shorter.id: 1, longer.id: 9, broken.id: 4, lost.id: 4}
    [found, *_] = await library.search(longer.tenant_id, "new 8", 1)
    assert found.passage.text.startswith("new 8")


async def test_a_document_changed_or_deleted_while_it_is_cut_anew_ends_as_the_record_says(library: Library) -> None:
    first, second = await filled(library, 2, lines=4)
    new = await library.indexes_record.begin(uuid4(), "small", 192, from_originals=True)
    assert new
    library.small.gate.clear()
    keeping = asyncio.create_task(library.a_keeper(grace_s=60.0).step())
    await library.small.reached.wait()
    await library.change(first, PRIVATE)
    await library.delete(second)
    library.small.gate.set()
    await keeping
    await library.agrees(new.id)


async def test_a_lost_index_is_filled_again(library: Library) -> None:
    await filled(library)
    await library.stores.drop(FIRST.id)
    library.found.rows.clear()
    await library.keeper.step()
    await library.agrees(FIRST.id)


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_races_the_new_index_is_whole(library: Library, seed: int) -> None:
    """Uploads, changes, deletions and the rebuild, interleaved at each step."""
    random = Random(seed)
    old = await filled(library, 4, lines=3)
    waiting = [await library.upload("one", "two", "three", member=a_member()) for _ in range(3)]
    stumble(library.record, random, "find", "update", "delete", "add_passages", "complete", "begin_indexing")
    stumble(library.indexes_record, random, "live", "missing", "passages", "hold", "switch")
    stumble(library.found, random, "write", "place", "remove")
    new = await library.begin("embedding" if seed % 2 else "small")
    await library.stores.create(library.indexes_record.versions[new])
    stumble(library.stores.indexes[new], random, "write", "place", "remove")

    async def keep() -> None:
        while await library.active() != new:
            await library.a_keeper(grace_s=60.0).step()

    async def index(document: Document) -> None:
        try:
            await library.index(document)
        except Unavailable:  # deleted, with its original, just as it was to be read: the event comes again
            await library.index(document)

    work = [keep(), *map(index, waiting)]
    work += [library.change(each, random.choice([PRIVATE, MOVED])) for each in (*old[:3], *waiting[:2])]
    work += [library.delete(each) for each in (old[random.randrange(4)], waiting[random.randrange(3)])]
    random.shuffle(work)
    await asyncio.gather(*work)
    await library.agrees(new)


def stumble(port: object, random: Random, *names: str) -> None:
    for name in names:
        setattr(port, name, _stumbling(getattr(port, name), random))


def _stumbling(method: Callable, random: Random) -> Callable:
    async def called(*arguments: object) -> object:
        for _ in range(random.randrange(5)):
            await asyncio.sleep(0)
        answer = await method(*arguments)
        for _ in range(random.randrange(5)):
            await asyncio.sleep(0)
        return answer

    return called


async def followed(progress: AsyncIterator[Progress]) -> list[Progress]:
    return [each async for each in progress]


async def test_an_operator_follows_a_rebuild_to_its_end(library: Library) -> None:
    await filled(library)
    request_id = uuid4()
    progress = library.rebuilding.rebuild(request_id, "small")
    version, held = await anext(progress)
    assert (version.embedding_model, version.dimensions, held.documents, held.documents_held) == ("small", 192, 6, 0)
    await library.keeper.step()
    [*_, (version, held)] = await followed(progress)
    assert version.state is IndexState.ACTIVE
    assert held.passages_held == held.passages == 6 * (BATCH + 3)
    [(again, _)] = await followed(library.rebuilding.rebuild(request_id, "small"))
    assert again == version
    assert [each for each, _ in await library.rebuilding.indexes()] == [version]


async def test_without_a_model_that_of_the_active_index_is_taken(library: Library) -> None:
    version, _ = await anext(library.rebuilding.rebuild(uuid4(), ""))
    assert (version.id, version.embedding_model) == (2, "embedding")


async def test_a_second_rebuild_is_refused(library: Library) -> None:
    await filled(library, 1)
    await anext(library.rebuilding.rebuild(uuid4(), "small"))
    with pytest.raises(WrongState) as refused:
        await anext(library.rebuilding.rebuild(uuid4(), ""))
    assert (refused.value.reason, refused.value.facts) == (Reason.INDEX_REBUILDING, {"embedding_model": "small"})


async def test_an_unknown_model_is_refused_and_nothing_begins(library: Library) -> None:
    with pytest.raises(Invalid) as refused:
        await anext(library.rebuilding.rebuild(uuid4(), "none-such"))
    assert refused.value.reason is Reason.EMBEDDING_MODEL_UNKNOWN
    assert len(await library.rebuilding.indexes()) == 1


async def test_a_cancelled_rebuild_leaves_nothing_and_can_be_begun_again(library: Library) -> None:
    await filled(library)
    progress = library.rebuilding.rebuild(uuid4(), "small")
    await anext(progress)
    await library.stores.create(library.indexes_record.versions[2])
    await library.rebuilding.cancel()
    with pytest.raises(Conflict) as refused:
        await followed(progress)
    assert refused.value.reason is Reason.REBUILD_CANCELLED
    await library.keeper.step()
    assert set(library.stores.indexes) == {FIRST.id}
    assert await library.active() == FIRST.id
    new = await library.begin()
    await library.keeper.step()
    assert await library.active() == new
    await library.agrees(new)
