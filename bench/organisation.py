"""An organisation of a running mesh that is filled without uploads: by the code that indexes, past files and events."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Self

import asyncpg
import grpc

from bench.mesh import RunningMesh
from parley.auth.v1.auth_service_pb2 import LoginRequest, RegisterRequest
from parley.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from services.knowledge.document import Document, File
from services.knowledge.embedding import EmbeddingModel
from services.knowledge.index import PassageIndexes
from services.knowledge.indexes.version import IndexState, IndexVersion
from services.knowledge.passages import Passage, passage_id
from services.shared.serving.settings import TlsSettings
from stack.postgres import DATABASE

_BATCH = 32
_WRITES_AT_ONCE = 4
_FIRST = IndexVersion(1, IndexState.ACTIVE, "embedding", 384)
"""The index of a new mesh."""
_PASSWORD = "a password of the bench"


class Filler:
    """What knowledge uses, opened from outside with its credentials."""

    def __init__(self, mesh: RunningMesh) -> None:
        tls, self._mesh = mesh.data_dir / "tls", mesh
        files = TlsSettings(
            tls_ca_file=tls / "ca.pem", tls_cert_file=tls / "knowledge.pem", tls_key_file=tls / "knowledge-key.pem"
        )
        self.embedding = EmbeddingModel(mesh.triton, "embedding", files)
        self._indexes = PassageIndexes(f"http://{mesh.address('milvus')}")
        self.index = self._indexes.of(_FIRST)
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._opened.enter_async_context(self.embedding)
        await self._opened.enter_async_context(self._indexes)
        password = (self._mesh.data_dir / "secrets" / "postgres-knowledge").read_text().strip()
        dsn = f"postgresql://knowledge@{self._mesh.address('postgres')}/{DATABASE}"
        self._record = await asyncpg.connect(dsn, password=password)
        self._opened.push_async_callback(self._record.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    async def fill(self, tenant_id: uuid.UUID, documents: Mapping[str, Sequence[Passage]]) -> dict[uuid.UUID, str]:
        """Index documents by file name. Returns the file name of each passage."""
        rows = {_document(tenant_id, name): passages for name, passages in documents.items()}
        await self._record_all(rows)
        pairs = ((document, passage) for document, passages in rows.items() for passage in passages)
        async with asyncio.TaskGroup() as writes:
            slots = asyncio.Semaphore(_WRITES_AT_ONCE)
            for batch in _batches(pairs):
                vectors = await self.embedding.embed([passage.searchable_text for _, passage in batch])
                for (document, passage), vector in zip(batch, vectors, strict=True):
                    await slots.acquire()
                    write = writes.create_task(self.index.write(document, [passage], [vector]))
                    write.add_done_callback(lambda _: slots.release())
        return {
            passage_id(document.id, passage.position): document.file.filename
            for document, passages in rows.items()
            for passage in passages
        }

    async def texts(self, tenant_id: uuid.UUID) -> Sequence[str]:
        """What was embedded of an organisation's passages."""
        rows = await self._record.fetch(
            "SELECT position, headings, text FROM passages WHERE tenant_id = $1 ORDER BY document_id, position",
            tenant_id,
        )
        return [
            Passage(row["position"], row["text"], headings=tuple(json.loads(row["headings"]))).searchable_text
            for row in rows
        ]

    async def _record_all(self, rows: Mapping[Document, Sequence[Passage]]) -> None:
        await self._record.executemany(
            "INSERT INTO documents (id, tenant_id, user_id, request_id, filename, size_bytes, sha256, state, passages,"
            " passages_indexed, index_id) VALUES ($1, $2, $3, $4, $5, $6, $7, 'indexed', $8, $8, 1)",
            [
                (
                    row.id,
                    row.tenant_id,
                    row.user_id,
                    row.file.request_id,
                    row.file.filename,
                    1,
                    row.file.sha256,
                    len(own),
                )
                for row, own in rows.items()
            ],
        )
        await self._record.executemany(
            "INSERT INTO passages (id, tenant_id, document_id, position, headings, text) VALUES ($1,$2,$3,$4,$5,$6)",
            [
                (
                    passage_id(row.id, own.position),
                    row.tenant_id,
                    row.id,
                    own.position,
                    json.dumps(own.headings),
                    own.text,
                )
                for row, passages in rows.items()
                for own in passages
            ],
        )


async def register(edge: grpc.aio.Channel) -> tuple[uuid.UUID, str]:
    """A new organisation's id and its owner's address."""
    email = f"{uuid.uuid4()}@bench.example"
    request = RegisterRequest(
        request_id=str(uuid.uuid4()), organisation_name="bench", email=email, password=_PASSWORD, display_name="bench"
    )
    response = await AuthServiceStub(edge).Register(request)
    return uuid.UUID(response.user.tenant_id), email


async def sign_in(edge: grpc.aio.Channel, email: str) -> tuple[tuple[str, str], ...]:
    """The metadata of the owner's calls, for some minutes."""
    response = await AuthServiceStub(edge).Login(LoginRequest(email=email, password=_PASSWORD))
    return (("authorization", f"Bearer {response.tokens.access_token}"),)


def _document(tenant_id: uuid.UUID, name: str) -> Document:
    file = File(uuid.uuid4(), name, 1, hashlib.sha256(name.encode()).hexdigest())
    now = datetime.now(UTC)
    return Document(id=uuid.uuid4(), tenant_id=tenant_id, user_id=uuid.uuid4(), file=file, create_time=now)


def _batches(
    pairs: Iterable[tuple[Document, Passage]],
) -> Iterator[list[tuple[Document, Passage]]]:
    remaining = iter(pairs)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
