"""A deleted document leaves the index, the record and the store within seconds, also when NATS was away meanwhile."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import grpc
import pytest
from pymilvus import AsyncMilvusClient

from parley.knowledge.v1.document_pb2 import DOCUMENT_STATE_INDEXED, Document
from parley.knowledge.v1.knowledge_service_pb2 import (
    DeleteDocumentRequest,
    UploadDocumentRequest,
    UploadedFile,
    WatchDocumentRequest,
)
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from stack.s3 import BUCKET
from tests.chaos.mesh import ChaosMesh
from tests.mesh.running import RunningMesh, User

GONE_WITHIN_S = 5.0
NATS_BACK_WITHIN_S = 30.0


async def indexed(channel: grpc.aio.Channel, user: User) -> Document:
    content = f"The {uuid4().hex} of the estuary is shy. ".encode() * 200
    file = UploadedFile(request_id=str(uuid4()), filename="estuary.txt", size_bytes=len(content))
    file.sha256 = hashlib.sha256(content).hexdigest()

    async def parts() -> AsyncIterator[UploadDocumentRequest]:
        yield UploadDocumentRequest(file=file)
        yield UploadDocumentRequest(chunk=content)

    stub = KnowledgeServiceStub(channel)
    document = (await stub.UploadDocument(parts(), metadata=user.metadata)).document
    async for answer in stub.WatchDocument(WatchDocumentRequest(document_id=document.id), metadata=user.metadata):
        document = answer.document
    assert document.state == DOCUMENT_STATE_INDEXED
    return document


async def delete(channel: grpc.aio.Channel, user: User, document: Document) -> None:
    await KnowledgeServiceStub(channel).DeleteDocument(
        DeleteDocumentRequest(document_id=document.id), metadata=user.metadata
    )


async def traces(mesh: RunningMesh, document: Document) -> dict[str, int]:
    """How much of a document is in each store."""
    milvus = AsyncMilvusClient(f"http://{mesh.endpoints['parts']['milvus'][0]}")
    try:
        asked = {"filter": f'document_id == "{document.id}"', "output_fields": ["passage_id"]}
        rows = [row for name in await milvus.list_collections() for row in await milvus.query(name, **asked)]
    finally:
        await milvus.close()
    found = {"milvus": len(rows)}
    for table, column in (("documents", "id"), ("passages", "document_id")):
        statement = f"SELECT FROM {table} WHERE {column} = $1"
        found[table] = len(await mesh.rows(statement, UUID(document.id), service="knowledge"))
    bucket = mesh.data_dir / "s3" / "buckets" / BUCKET
    found["s3"] = sum(1 for path in await asyncio.to_thread(lambda: list(bucket.rglob(f"{document.id}*"))))
    return found


async def until_gone(mesh: RunningMesh, document: Document, within_s: float) -> None:
    left: dict[str, int] = {}
    try:
        async with asyncio.timeout(within_s):
            while any((left := await traces(mesh, document)).values()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"after {within_s} s there is left {left}")


async def test_a_deleted_document_is_gone_from_every_store(
    mesh: RunningMesh, edge: grpc.aio.Channel, user: User
) -> None:
    document = await indexed(edge, user)
    assert all((await traces(mesh, document)).values())
    await delete(edge, user, document)
    await until_gone(mesh, document, GONE_WITHIN_S)


async def test_it_is_gone_when_nats_was_away(
    faults: ChaosMesh, pair: RunningMesh, gate: grpc.aio.Channel, ada: User
) -> None:
    document = await indexed(gate, ada)
    assert faults.signal("nats", signal.SIGSTOP)
    await delete(gate, ada, document)
    left = await traces(pair, document)
    assert (left["documents"], left["passages"]) == (0, 0)
    assert left["milvus"]
    assert left["s3"]
    assert faults.signal("nats", signal.SIGKILL)
    assert await faults.until_ready("nats", within_s=NATS_BACK_WITHIN_S)
    await until_gone(pair, document, NATS_BACK_WITHIN_S)
