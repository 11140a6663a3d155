"""In-memory stand-ins of the indexes and of their record."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

from services.knowledge.document import Document, DocumentState
from services.knowledge.indexes.live import CHANGED, Indexes
from services.knowledge.indexes.version import Holding, Index, IndexState, IndexVersion, Rows
from services.knowledge.passages import Passage
from services.knowledge.search import Embedding
from services.shared.errors import Invalid, Reason, Unavailable
from tests.knowledge.fakes import FakeChanges, FakeIndex, FakeRecord

FIRST = IndexVersion(1, IndexState.ACTIVE, "embedding", 384)


class FakeIndexRecord:
    """Implements RebuildRecord and Rebuilds beside a FakeRecord."""

    def __init__(self, record: FakeRecord, changes: FakeChanges | None = None) -> None:
        self._record = record
        self._changes = changes or FakeChanges()
        self._lock = asyncio.Lock()
        self.versions: dict[int, IndexVersion] = {FIRST.id: FIRST}
        self.requests: dict[UUID, int] = {}
        self._last = FIRST.id

    async def live(self) -> Sequence[IndexVersion]:
        return [version for version in self.versions.values() if version.state is not IndexState.RETIRED]

    async def find_version(self, index_id: int) -> IndexVersion | None:
        return self.versions.get(index_id)

    async def begin(
        self, request_id: UUID, model: str, dimensions: int, from_originals: bool = False
    ) -> IndexVersion | None:
        if request_id in self.requests:
            return self.versions.get(self.requests[request_id])
        if any(version.state is IndexState.BUILDING for version in self.versions.values()):
            return None
        self._last += 1
        self.requests[request_id] = self._last
        self._put(IndexVersion(self._last, IndexState.BUILDING, model, dimensions, from_originals))
        return self.versions[self._last]

    async def cancel(self) -> None:
        for version in await self.live():
            if version.state is IndexState.BUILDING:
                self._put(replace(version, state=IndexState.RETIRED))

    async def held(self, index_id: int) -> Holding:
        documents = self._indexed()
        holding = [found for found in documents if self._record.held.get(found.id, 0) >= index_id]
        passages = [sum(found.progress.passages for found in each) for each in (documents, holding)]
        return Holding(len(documents), len(holding), *passages)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._lock:
            yield

    async def missing(self, index_id: int, after: UUID | None, limit: int) -> Sequence[Document]:
        behind = (found for found in self._indexed() if self._record.held.get(found.id, 0) < index_id)
        found = sorted(behind, key=lambda document: document.id)
        return [document for document in found if after is None or document.id > after][:limit]

    async def passages(self, document: Document, first: int, limit: int) -> Sequence[Passage]:
        known = self._record.passages_of(document.id)
        return [known[position] for position in sorted(known) if position >= first][:limit]

    async def replace_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        return self._record.replace_passages(document, passages)

    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        return await self._record.find(tenant_id, document_id)

    async def hold(self, document: Document, index_id: int) -> bool:
        now = await self._record.find(document.tenant_id, document.id)
        if now is None or now.state is not DocumentState.INDEXED:
            return False
        self._record.held[document.id] = max(self._record.held.get(document.id, 0), index_id)
        return True

    async def holds_nothing(self, index_id: int) -> None:
        held = self._record.held
        self._record.held = {key: index_id - 1 if last >= index_id else last for key, last in held.items()}

    async def switch(self, index_id: int) -> bool:
        version = self.versions.get(index_id)
        if version is None or version.state is not IndexState.BUILDING or await self.missing(index_id, None, 1):
            return False
        self.versions = {
            key: replace(each, state=IndexState.RETIRED) if each.state is IndexState.ACTIVE else each
            for key, each in self.versions.items()
        }
        self._record.active_index = index_id
        self._put(replace(version, state=IndexState.ACTIVE))
        return True

    async def retired(self, age_s: float) -> Sequence[int]:
        return [key for key, version in self.versions.items() if version.state is IndexState.RETIRED and age_s <= 0]

    async def forget(self, index_id: int) -> None:
        del self.versions[index_id]

    def _indexed(self) -> list[Document]:
        return [found for found in self._record.documents() if found.state is DocumentState.INDEXED]

    def _put(self, version: IndexVersion) -> None:
        self.versions[version.id] = version
        self._changes.wake(CHANGED)


class FakeStores:
    """Implements Stores: a FakeIndex for each."""

    def __init__(self, first: FakeIndex | None = None) -> None:
        self.indexes: dict[int, FakeIndex] = {FIRST.id: first} if first else {}
        self._known = dict(self.indexes)

    def of(self, version: IndexVersion) -> FakeIndex:
        if version.id not in self._known:
            self._known[version.id] = FakeIndex()
            self._known[version.id].down = True
        return self._known[version.id]

    async def create(self, version: IndexVersion) -> bool:
        if version.id in self.indexes:
            return False
        self.indexes[version.id] = self.of(version)
        self.indexes[version.id].down = False
        return True

    async def drop(self, index_id: int) -> None:
        if index := self.indexes.pop(index_id, None):
            index.down = True


class FakeModels:
    """Implements Models: each model that is served, with its dimensions."""

    def __init__(self, **served: int) -> None:
        self.served = {"embedding": 384} | served
        self.down = False

    async def dimensions(self, model: str) -> int:
        if self.down:
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "down")
        if model not in self.served:
            raise Invalid(Reason.EMBEDDING_MODEL_UNKNOWN, "unknown")
        return self.served[model]


def indexes_of(record: FakeRecord, embedding: Embedding, rows: Rows) -> Indexes:
    """One active index."""
    opened = Index(FIRST, embedding, rows)
    return Indexes(FakeIndexRecord(record), lambda version: opened, FakeChanges())
