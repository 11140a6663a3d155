"""Rebuilding the index of the service as the stack starts it, by the operator's RPCs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import grpc
import pytest
from pymilvus import AsyncMilvusClient

from parley.knowledge.v1.index_service_pb2 import (
    CancelRebuildRequest,
    CheckIndexRequest,
    CheckIndexResponse,
    GetIndexRequest,
    Index,
    RebuildIndexRequest,
)
from parley.knowledge.v1.index_service_pb2_grpc import IndexServiceStub
from parley.knowledge.v1.knowledge_service_pb2 import DeleteDocumentRequest, SearchRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from services.shared.errors import Reason
from stack.mesh import Mesh
from tests.conftest import Signer
from tests.documents import pdf
from tests.knowledge import test_process
from tests.knowledge.test_process import PAGES, Triton, channel_of, client, me, serving, upload, watched
from tests.refusals import refusal_of

mesh, triton = test_process.mesh, test_process.triton


@asynccontextmanager
async def operator(mesh: Mesh) -> AsyncIterator[IndexServiceStub]:
    async with channel_of(mesh, "operator") as channel:
        yield IndexServiceStub(channel)


def rebuild(stub: IndexServiceStub, model: str = "", request_id: str = "") -> grpc.aio.UnaryStreamCall:
    request = RebuildIndexRequest(request_id=request_id or str(uuid4()), embedding_model=model)
    return stub.RebuildIndex(request, timeout=60)


async def last_of(call: grpc.aio.UnaryStreamCall) -> Index:
    *_, last = [answer.index async for answer in call]
    return last


async def collections(mesh: Mesh) -> dict[str, int]:
    """The dimensions of each collection in Milvus."""
    milvus = AsyncMilvusClient(f"http://{mesh.address('milvus')}")
    found = {}
    for name in await milvus.list_collections():
        described = await milvus.describe_collection(name)
        [found[name]] = [field["params"]["dim"] for field in described["fields"] if field["name"] == "dense"]
    await milvus.close()
    return found


async def finds(stub: KnowledgeServiceStub, signer: Signer, number: int) -> bool:
    answer = await stub.Search(SearchRequest(query=f"permit {number * 7919}", limit=3), **me(signer))
    return number in {passage.page for passage in answer.passages}


async def test_a_rebuild_survives_a_crash_while_searches_and_uploads_go_on(
    mesh: Mesh, triton: Triton, signer: Signer
) -> None:
    """Another model with other dimensions; the process is killed in the middle, and the next one goes on."""
    request_id = str(uuid4())
    async with serving(mesh, signer) as process, client(mesh) as stub, operator(mesh) as indexes:
        first = await upload(stub, signer, pdf(PAGES[:40]))
        await watched(stub, signer, first)
        [old] = (await indexes.GetIndex(GetIndexRequest())).indexes
        assert (old.id, old.active, old.embedding_model, old.dimensions) == (1, True, "embedding", 384)
        assert old.passages_held == old.passages > 0
        triton.free, triton.only = 3, "small"
        triton.gate.clear()
        triton.halted.clear()
        call = rebuild(indexes, "small", request_id)
        begun = (await call.read()).index
        assert (begun.active, begun.embedding_model, begun.dimensions) == (False, "small", 192)
        async with asyncio.timeout(30):
            await triton.halted.wait()
        assert await finds(stub, signer, 7)
        refusal = await refusal_of(rebuild(indexes).read())
        assert (refusal.reason, refusal.facts["embedding_model"]) == (Reason.INDEX_REBUILDING, "small")
        process.kill()
        await process.wait()
    triton.gate.set()
    async with serving(mesh, signer), client(mesh) as stub, operator(mesh) as indexes:
        following = asyncio.create_task(last_of(rebuild(indexes, "small", request_id)))
        second = await upload(stub, signer, pdf(PAGES[40:]))
        async with asyncio.timeout(60):
            while not following.done():
                assert await finds(stub, signer, 7)
        last = await following
        assert (last.id, last.active, last.passages_held) == (begun.id, True, last.passages)
        *_, ended = await watched(stub, signer, second)
        assert await finds(stub, signer, 7)
        assert await finds(stub, signer, 2)
        [now] = (await indexes.GetIndex(GetIndexRequest())).indexes
        assert now.passages_held == now.passages == old.passages + ended.progress.passages
        assert await collections(mesh) == {"passages_1": 384, f"passages_{begun.id}": 192}
        assert await last_of(rebuild(indexes, "small", request_id)) == now
        [mended] = [answer async for answer in indexes.CheckIndex(CheckIndexRequest(), timeout=60)]
        assert mended == CheckIndexResponse()
        for document in (first, second):
            await stub.DeleteDocument(DeleteDocumentRequest(document_id=document.id), **me(signer))


async def test_a_model_that_is_not_served_is_refused(mesh: Mesh, triton: Triton, signer: Signer) -> None:
    async with serving(mesh, signer), operator(mesh) as indexes:
        before = await indexes.GetIndex(GetIndexRequest())
        for model, reason in (("none-such", Reason.EMBEDDING_MODEL_UNKNOWN), ('"x', Reason.INVALID_FIELD)):
            assert (await refusal_of(rebuild(indexes, model).read())).reason is reason
        assert await indexes.GetIndex(GetIndexRequest()) == before
        await indexes.CancelRebuild(CancelRebuildRequest())


async def test_nobody_but_the_operator_may_call(mesh: Mesh, triton: Triton, signer: Signer) -> None:
    async with serving(mesh, signer):
        for holder in ("edge", "chat", "session"):
            async with channel_of(mesh, holder) as channel:
                stub = IndexServiceStub(channel)
                for call in (
                    stub.GetIndex(GetIndexRequest(), **me(signer)),
                    stub.CancelRebuild(CancelRebuildRequest(), **me(signer)),
                    stub.CheckIndex(CheckIndexRequest(), **me(signer)).read(),
                    rebuild(stub).read(),
                ):
                    assert (await refusal_of(call)).reason is Reason.PEER_NOT_ALLOWED


@pytest.fixture(autouse=True)
async def _open_gate(triton: Triton) -> AsyncIterator[None]:
    yield
    triton.only = ""
    triton.gate.set()
