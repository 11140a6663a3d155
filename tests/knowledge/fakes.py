"""In-memory stand-ins of the knowledge service's ports; the record is held to the suite of the real one."""

import asyncio
import hashlib
import operator
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import IO
from uuid import UUID

from services.knowledge.document import (
    Change,
    Collection,
    Document,
    DocumentState,
    Failure,
    File,
    Member,
    Progress,
    Visibility,
)
from services.knowledge.filters import EVERYTHING, Filters
from services.knowledge.indexing import Extracted, Unreadable
from services.knowledge.lexical import SparseVector, passage_vector
from services.knowledge.passages import Block, Passage, cut, passage_id
from services.knowledge.search import FoundPassage, Vector
from services.knowledge.upload import Duplicate, Full, Quota, Upload
from services.shared.errors import Reason, Unavailable


class FakeChanges:
    """Implements watch.Changes."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, list[asyncio.Event]] = defaultdict(list)

    @contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._watchers[key].append(changed)
        try:
            yield changed
        finally:
            self._watchers[key].remove(changed)

    def wake(self, key: str) -> None:
        for changed in self._watchers[key]:
            changed.set()


class FakeRecord:
    """Implements Documents, IndexedDocuments, Passages and Uploads; `events` are (type, document id)."""

    def __init__(self, changes: FakeChanges | None = None, quota: Quota | None = None) -> None:
        self._changes = changes or FakeChanges()
        self.quota = quota or Quota()
        self._documents: dict[UUID, Document] = {}
        self._passages: dict[UUID, dict[int, Passage]] = defaultdict(dict)
        self._uploads: dict[UUID, tuple[Member, Upload]] = {}
        self._now = datetime(2026, 3, 1, tzinfo=UTC)
        self.events: list[tuple[str, UUID]] = []
        self.active_index = 1
        self.held: dict[UUID, int] = {}

    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        document = self._documents.get(document_id)
        return document if document and document.tenant_id == tenant_id else None

    async def find_visible(self, member: Member, document_id: UUID) -> Document | None:
        return next((found for found in self._visible(member) if found.id == document_id), None)

    async def newest(
        self, member: Member, before: tuple[datetime, UUID] | None, limit: int, collection: str | None = None
    ) -> Sequence[Document]:
        seen = [found for found in self._visible(member) if collection in (None, found.file.collection)]
        seen.sort(key=lambda document: (document.create_time, document.id), reverse=True)
        return [found for found in seen if before is None or (found.create_time, found.id) < before][:limit]

    async def collections(self, member: Member, after: str | None, limit: int) -> Sequence[Collection]:
        counts = sorted(Counter(found.file.collection for found in self._visible(member)).items())
        return [Collection(*count) for count in counts if after is None or count[0] > after][:limit]

    async def update(self, member: Member, document_id: UUID, change: Change) -> Document | None:
        if (document := await self.find_uploaded(member, document_id)) is None:
            return None
        changed = {name: value for name, value in asdict(change).items() if value is not None}
        self._write(replace(document, file=replace(document.file, **changed)))
        self._say("DocumentUpdated", document_id)
        return self._documents[document_id]

    async def delete(self, member: Member, document: Document) -> bool:
        if document.tenant_id != member.tenant_id or await self.find_visible(member, document.id) is None:
            return False
        del self._documents[document.id]
        self._passages.pop(document.id, None)
        return self._say("DocumentDeleted", document.id)

    async def begin_indexing(self, tenant_id: UUID, document_id: UUID) -> Document | None:
        document = await self.find(tenant_id, document_id)
        if document and not document.state.is_final:
            self._passages.pop(document_id, None)
            document = replace(document, state=DocumentState.INDEXING, content_type="", progress=Progress())
            self._write(document)
        return document

    async def announce(self, document: Document, extracted: Extracted) -> None:
        if now := await self._indexing(document):
            progress = Progress(extracted.pages, extracted.passage_count)
            self._write(replace(now, content_type=extracted.content_type, progress=progress))

    async def add_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        if (now := await self._indexing(document)) is None:
            return False
        self._passages[document.id] |= {passage.position: passage for passage in passages}
        done = min(now.progress.passages, now.progress.passages_indexed + len(passages))
        self._write(replace(now, progress=replace(now.progress, passages_indexed=done)))
        return True

    async def complete(self, document: Document, passage_count: int, index_id: int) -> bool:
        if (now := await self._indexing(document)) is None or index_id < self.active_index:
            return False
        self.held[document.id] = index_id
        progress = replace(now.progress, passages_indexed=now.progress.passages)
        self._write(replace(now, state=DocumentState.INDEXED, progress=progress))
        return self._say("DocumentIndexed", document.id)

    async def fail(self, document: Document, failure: Failure) -> bool:
        now = await self.find(document.tenant_id, document.id)
        if now is None or now.state.is_final:
            return False
        self._passages.pop(document.id, None)
        progress = replace(now.progress, passages_indexed=0)
        self._write(replace(now, state=DocumentState.FAILED, failure=failure, progress=progress))
        return self._say("DocumentFailed", document.id)

    async def searchable(
        self,
        tenant_id: UUID,
        passage_ids: Sequence[UUID],
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Sequence[FoundPassage]:
        known = {
            passage_id(document.id, passage.position): FoundPassage(
                passage_id(document.id, passage.position), document.id, document.file.filename, passage
            )
            for document in self._documents.values()
            if document.tenant_id == tenant_id
            and document.state is DocumentState.INDEXED
            and (document.file.visibility is Visibility.ORGANISATION or document.user_id == user_id)
            and passes(document, filters)
            for passage in self._passages[document.id].values()
        }
        return [known[found] for found in passage_ids if found in known][:limit]

    async def expect(self, member: Member, file: File) -> Document | Duplicate | Full | None:
        for found in self._own(member):
            if found.file.request_id == file.request_id:
                return found
        for found in self._visible(member):
            if found.file.sha256 == file.sha256 and not file.allow_duplicate and found.state != DocumentState.FAILED:
                return Duplicate(found.id)
        uploads = [upload.file.size_bytes for owner, upload in self._uploads.values() if _same_tenant(owner, member)]
        stored = [found.file.size_bytes for found in self._documents.values() if _same_tenant(found, member)]
        taken = uploads + stored
        is_full = len(taken) >= self.quota.documents or sum(taken) + file.size_bytes > self.quota.size_bytes
        return Full(self.quota) if is_full else None

    async def sample(self, tenant_id: UUID, limit: int) -> Sequence[Passage]:
        shared = (
            found
            for found in self._documents.values()
            if found.tenant_id == tenant_id and found.file.visibility is Visibility.ORGANISATION
        )
        return [passage for found in shared for passage in self._passages[found.id].values()][:limit]

    async def find_uploaded(self, member: Member, document_id: UUID) -> Document | None:
        return next((found for found in self._own(member) if found.id == document_id), None)

    async def add_document(self, member: Member, document_id: UUID, file: File) -> Document | Duplicate | Full:
        known = await self.expect(member, file)
        if known and not (isinstance(known, Full) and document_id in self._uploads):
            return known
        self._now += timedelta(seconds=1)
        document = Document(
            id=document_id, tenant_id=member.tenant_id, user_id=member.user_id, file=file, create_time=self._now
        )
        self._write(document)
        self._uploads.pop(document_id, None)
        self._say("DocumentUploaded", document_id)
        return document

    async def begin(self, member: Member, upload_id: UUID, file: File) -> Upload | Duplicate | Full:
        known = await self.expect(member, file)
        if isinstance(known, Document):
            return Upload(known.id, known.file, known.file.size_bytes, finished=True)
        for owner, upload in self._uploads.values():
            if _is(owner, member) and upload.file.request_id == file.request_id:
                return upload
        if known:
            return known
        self._uploads[upload_id] = (member, Upload(upload_id, file, 0))
        return self._uploads[upload_id][1]

    async def find_upload(self, member: Member, upload_id: UUID) -> Upload | None:
        owner, upload = self._uploads.get(upload_id, (None, None))
        return upload if owner and _is(owner, member) else None

    async def advance(self, member: Member, upload: Upload, chunk_bytes: int) -> bool:
        now = await self.find_upload(member, upload.id)
        if now is None or now.received_bytes != upload.received_bytes:
            return False
        self._uploads[upload.id] = (member, replace(now, received_bytes=now.received_bytes + chunk_bytes))
        return True

    async def drop(self, member: Member, upload_id: UUID) -> None:
        if await self.find_upload(member, upload_id):
            del self._uploads[upload_id]

    async def drop_older_than(self, age_s: float) -> None:
        if age_s <= 0:
            self._uploads.clear()

    def replace_passages(self, document: Document, passages: Sequence[Passage]) -> bool:
        if (now := self._documents.get(document.id)) is None or now.state is not DocumentState.INDEXED:
            return False
        self._passages[document.id] = {passage.position: passage for passage in passages}
        self._write(replace(now, content_type=document.content_type, progress=document.progress))
        return True

    def documents(self) -> list[Document]:
        return list(self._documents.values())

    def passages_of(self, document_id: UUID) -> dict[int, Passage]:
        return self._passages.get(document_id, {})

    def _visible(self, member: Member) -> Iterator[Document]:
        return (
            found
            for found in self._documents.values()
            if _same_tenant(found, member)
            and (found.file.visibility is Visibility.ORGANISATION or found.user_id == member.user_id)
        )

    def _own(self, member: Member) -> Iterator[Document]:
        return (found for found in self._documents.values() if _is(member, found))

    async def _indexing(self, document: Document) -> Document | None:
        now = await self.find(document.tenant_id, document.id)
        return now if now and now.state is DocumentState.INDEXING else None

    def _write(self, document: Document) -> None:
        self._documents[document.id] = document
        self._changes.wake(str(document.id))

    def _say(self, event_type: str, document_id: UUID) -> bool:
        self.events.append((event_type, document_id))
        self._changes.wake(str(document_id))
        return True


def passes(document: Document, filters: Filters) -> bool:
    time = document.create_time
    return (
        (not filters.collections or document.file.collection in filters.collections)
        and (not filters.content_types or document.content_type in filters.content_types)
        and (filters.created_after is None or time >= filters.created_after)
        and (filters.created_before is None or time < filters.created_before)
    )


def _same_tenant(one: Member | Document, other: Member | Document) -> bool:
    return one.tenant_id == other.tenant_id


def _is(member: Member, other: Member | Document) -> bool:
    return (member.tenant_id, member.user_id) == (other.tenant_id, other.user_id)


class FakeOriginals:
    """Implements both ports Originals; `objects` by key. Fails while `down`."""

    def __init__(self) -> None:
        self.objects: dict[tuple[object, ...], bytes] = {}
        self.down = False

    async def put(self, tenant_id: UUID, document_id: UUID, content: IO[bytes]) -> None:
        self._check()
        self.objects[tenant_id, document_id] = content.read()

    async def read(self, tenant_id: UUID, document_id: UUID) -> AsyncIterator[bytes]:
        self._check()
        if (content := self.objects.get((tenant_id, document_id))) is None:
            raise Unavailable(Reason.STORAGE_UNAVAILABLE, "gone") from FileNotFoundError()
        yield content

    async def delete(self, tenant_id: UUID, document_id: UUID) -> None:
        self._check()
        self.objects.pop((tenant_id, document_id), None)

    async def put_chunk(self, tenant_id: UUID, upload_id: UUID, offset_bytes: int, chunk: bytes) -> None:
        self._check()
        self.objects[tenant_id, upload_id, offset_bytes] = chunk

    async def chunks(self, tenant_id: UUID, upload_id: UUID, size_bytes: int) -> AsyncIterator[bytes]:
        offset_bytes = 0
        while offset_bytes < size_bytes and (tenant_id, upload_id, offset_bytes) in self.objects:
            self._check()
            chunk = self.objects[tenant_id, upload_id, offset_bytes]
            yield chunk
            offset_bytes += len(chunk)

    async def delete_chunks(self, tenant_id: UUID, upload_id: UUID) -> None:
        self._check()
        chunks = [key for key in self.objects if len(key) == 3 and key[:2] == (tenant_id, upload_id)]
        for key in chunks:
            del self.objects[key]

    def _check(self) -> None:
        if self.down:
            raise Unavailable(Reason.STORAGE_UNAVAILABLE, "down")


class FakeExtraction:
    """Implements Extraction: a text file has a paragraph a line; one that begins with `broken` is corrupt."""

    @asynccontextmanager
    async def read(self, content: AsyncIterator[bytes]) -> AsyncIterator[Extracted]:
        text = b"".join([part async for part in content]).decode()
        if text.startswith("broken"):
            raise Unreadable(Reason.DOCUMENT_CORRUPT, "It is broken.")
        passages = list(cut(Block(line.ljust(900, ".")) for line in text.splitlines()))
        yield Extracted("text/plain", 0, len(passages), iter(passages))


class FakeEmbedding:
    """Implements Embedding: the same words give the same direction. Fails `failures` times, waits at `gate`."""

    def __init__(self) -> None:
        self.failures = 0
        self.calls: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        self.calls.append(len(texts))
        self.reached.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "down")
        return [vector_of(text) for text in texts]


def vector_of(text: str) -> list[float]:
    """Of length 1, by the words of the text."""
    vector = [0.0] * 384
    for word in text.lower().split():
        vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 384] += 1.0
    length = sum(value * value for value in vector) ** 0.5 or 1.0
    return [value / length for value in vector]


class FakeIndex:
    """Implements both ports of the index: exact. `rows` are the documents as they were written, and the texts."""

    def __init__(self) -> None:
        self.rows: dict[UUID, tuple[Document, str]] = {}
        self.dimensions: set[int] = set()
        self.searches: list[tuple[UUID, str]] = []
        self.down = False

    async def write(self, document: Document, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        self._check()
        for passage, vector in zip(passages, vectors, strict=True):
            self.dimensions.add(len(vector))
            self.rows[passage_id(document.id, passage.position)] = (document, passage.searchable_text)

    async def probe(self) -> None:
        self._check()

    async def delete(self, passage_ids: Sequence[UUID]) -> None:
        self._check()
        for key in passage_ids:
            self.rows.pop(key, None)

    async def place(self, document: Document) -> None:
        self._check()
        for key, (written, text) in self.rows.items():
            if (written.tenant_id, written.id) == (document.tenant_id, document.id):
                self.rows[key] = (document, text)

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        self._check()
        gone = (tenant_id, document_id)
        self.rows = {key: row for key, row in self.rows.items() if (row[0].tenant_id, row[0].id) != gone}

    async def nearest(
        self,
        tenant_id: UUID,
        vector: Vector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        self._check()
        self.searches.append((tenant_id, "dense"))
        rows = self._seen(tenant_id, user_id, filters)
        return _best(rows, lambda text: sum(map(operator.mul, vector, vector_of(text))), limit)

    async def sharing(
        self,
        tenant_id: UUID,
        terms: SparseVector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        self._check()
        self.searches.append((tenant_id, "sparse"))

        def product(text: str) -> float:
            return sum(weight * terms.get(key, 0.0) for key, weight in passage_vector(text).items())

        rows = self._seen(tenant_id, user_id, filters)
        return {key: score for key, score in _best(rows, product, limit).items() if score}

    def _seen(self, tenant_id: UUID, user_id: UUID | None, filters: Filters) -> Mapping[UUID, str]:
        return {
            key: text
            for key, (document, text) in self.rows.items()
            if document.tenant_id == tenant_id
            and (document.file.visibility is Visibility.ORGANISATION or document.user_id == user_id)
            and passes(document, filters)
        }

    def _check(self) -> None:
        if self.down:
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "down")


def _best(rows: Mapping[UUID, str], score: Callable[[str], float], limit: int) -> Mapping[UUID, float]:
    scores = [(key, score(text)) for key, text in rows.items()]
    return dict(sorted(scores, key=lambda row: -row[1])[:limit])
