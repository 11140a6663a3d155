"""Records, fake and real, and the stores that the adapters are tested on."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID, uuid4

import pytest

from parley.knowledge.v1.knowledge_service_pb2_grpc import (
    KnowledgeServiceStub,
    add_KnowledgeServiceServicer_to_server,
)
from services.knowledge.document import Document, File, Member
from services.knowledge.handlers import DocumentEvents, KnowledgeService
from services.knowledge.indexing import Indexing
from services.knowledge.search import Search
from services.knowledge.store import StoredDocuments, StoredUploads
from services.knowledge.upload import Quota, Reception
from services.knowledge.vocabulary import Vocabulary
from services.knowledge.watch import Changes, Watch
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from stack.catalog import started
from stack.mesh import Mesh
from tests.conftest import ServeLocally, Signer
from tests.knowledge.crawls import Crawler, crawling
from tests.knowledge.fakes import (
    FakeChanges,
    FakeEmbedding,
    FakeExtraction,
    FakeIndex,
    FakeOriginals,
    FakeRecord,
)
from tests.knowledge.serving import Served
from tests.sites import Site, a_site

QUOTA = Quota(documents=20, size_bytes=1000)


@dataclass(frozen=True)
class Record:
    """The same record through each of its ports."""

    documents: StoredDocuments
    uploads: StoredUploads
    changes: Changes
    events: Callable[[UUID], "Events"]


Events = list[str]


def a_member(tenant_id: UUID | None = None, role: str = "member") -> Member:
    return Member(tenant_id or uuid4(), uuid4(), role)


def a_file(content: bytes = b"Some text.", filename: str = "notes.txt", **described: object) -> File:
    return File(uuid4(), filename, len(content), hashlib.sha256(content).hexdigest(), **described)


async def in_parts(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


async def add(record: "Record", member: Member | None = None, file: File | None = None) -> Document:
    """A queued document; there may be others of the same content."""
    file = replace(file or a_file(), allow_duplicate=True)
    document = await record.uploads.add_document(member or a_member(), uuid4(), file)
    assert isinstance(document, Document)
    return document


def uploader(document: Document) -> Member:
    return Member(document.tenant_id, document.user_id, "member")


@pytest.fixture
def fake_record() -> Record:
    changes = FakeChanges()
    fake = FakeRecord(changes, QUOTA)

    async def events(document_id: UUID) -> Events:
        return [event_type for event_type, about in fake.events if about == document_id]

    return Record(fake, fake, changes, events)


@pytest.fixture(scope="module")
async def real_record(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Record]:
    """Shared by a module's tests: each has an organisation of its own."""
    async with database_for("knowledge") as database:
        listener = Listener(database, "knowledge")

        async def events(document_id: UUID) -> Events:
            connection = await database.connect()
            select = "SELECT event_type FROM outbox WHERE aggregate_id = $1 ORDER BY position"
            rows = await connection.fetch(select, document_id)
            await connection.close()
            return [row["event_type"].rpartition(".")[2] for row in rows]

        async with listener.running():
            yield Record(StoredDocuments(database), StoredUploads(database, QUOTA), listener, events)


@pytest.fixture(params=["fake", "postgres"])
def record(request: pytest.FixtureRequest) -> Record:
    return request.getfixturevalue("fake_record" if request.param == "fake" else "real_record")


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A real Milvus and a real S3 for all tests of this folder."""
    with started(tmp_path_factory.mktemp("knowledge"), "milvus", "s3") as mesh:
        yield mesh


@pytest.fixture
async def served(serve_locally: ServeLocally, signer: Signer) -> AsyncIterator[Served]:
    changes = FakeChanges()
    record, originals, index, embedding = FakeRecord(changes), FakeOriginals(), FakeIndex(), FakeEmbedding()
    search, watch = Search(embedding, index, Vocabulary(record), record), Watch(record, changes)
    handler = KnowledgeService(record, Reception(record, originals), search, watch)
    events = DocumentEvents(Indexing(record, originals, FakeExtraction(), embedding, index))
    async with serve_locally(partial(add_KnowledgeServiceServicer_to_server, handler)) as channel:
        yield Served(KnowledgeServiceStub(channel), record, originals, index, embedding, events, signer)


@pytest.fixture(scope="module")
async def crawl_database(
    database_for: Callable[[str], AbstractAsyncContextManager[Database]],
) -> AsyncIterator[Database]:
    """Shared by a module's tests: each has an organisation of its own."""
    async with database_for("knowledge") as database:
        yield database


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with a_site() as site:
        yield site


@pytest.fixture
async def crawler(
    crawl_database: Database, serve_locally: ServeLocally, signer: Signer, site: Site
) -> AsyncIterator[Crawler]:
    """May ask `site` alone."""
    async with crawling(crawl_database, serve_locally, signer, site) as crawler:
        yield crawler
