"""The service as the stack starts it, on real stores and NATS, with a stand-in for Triton behind mutual TLS."""

import asyncio
import hashlib
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from pymilvus import AsyncMilvusClient
from tritonclient.grpc import service_pb2, service_pb2_grpc

from parley.knowledge.v1.document_pb2 import DOCUMENT_STATE_INDEXED, Document
from parley.knowledge.v1.knowledge_service_pb2 import (
    DeleteDocumentRequest,
    SearchRequest,
    UploadDocumentRequest,
    UploadedFile,
    WatchDocumentRequest,
)
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from stack import postgres
from stack.catalog import running
from stack.mesh import PROJECT, Mesh
from stack.s3 import BUCKET
from stack.services import environment
from tests.conftest import Signer
from tests.documents import pdf
from tests.knowledge.fakes import vector_of
from tests.knowledge.index_fakes import FIRST

NAME = "knowledge-1"
TENANT, USER = uuid4(), uuid4()
PAGES = [f"Rule {number}: the fee of permit {number * 7919} is due in spring. " * 20 for number in range(1, 80)]


DIMENSIONS = {"embedding": 384, "small": 192}


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The contract of two embedding models; waits at `gate` once `free` batches have passed, of one model if `only`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.free = 0
        self.only = ""
        self.halted = asyncio.Event()

    async def ModelInfer(
        self, request: service_pb2.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        [text] = request.inputs
        assert (text.name, text.datatype) == ("text", "BYTES")
        if request.model_name not in DIMENSIONS:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.model_name}")
        if self.only in ("", request.model_name) and self.free <= 0 and not self.gate.is_set():
            self.halted.set()
            await self.gate.wait()
        self.free -= self.only in ("", request.model_name)
        texts, raw = [], request.raw_input_contents[0]
        while raw:
            size = int.from_bytes(raw[:4], "little")
            texts.append(raw[4 : 4 + size].decode())
            raw = raw[4 + size :]
        assert [len(texts), 1] == list(text.shape)
        dimensions = DIMENSIONS[request.model_name]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="embedding", datatype="FP32", shape=[len(texts), dimensions])
        vectors = [vector_of(text)[:dimensions] for text in texts]
        answer.raw_output_contents.append(np.array(vectors, np.float32).tobytes())
        return answer


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    stores = (lambda mesh: postgres.part(mesh, durable=False), "nats", "milvus", "s3")
    async with running(tmp_path_factory.mktemp("mesh"), *stores) as mesh:
        yield mesh


@pytest.fixture(scope="module")
async def triton(mesh: Mesh) -> AsyncIterator[Triton]:
    model, server = Triton(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    pair = (mesh.key_file("triton").read_bytes(), mesh.cert_file("triton").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], mesh.ca_file.read_bytes(), require_client_auth=True)
    server.add_secure_port(mesh.address("triton"), credentials)
    await server.start()
    yield model
    await server.stop(None)


def channel_of(mesh: Mesh, holder: str) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        mesh.ca_file.read_bytes(), mesh.key_file(holder).read_bytes(), mesh.cert_file(holder).read_bytes()
    )
    return grpc.aio.secure_channel(mesh.address(NAME), credentials, [("grpc.ssl_target_name_override", "knowledge")])


async def start(mesh: Mesh, signer: Signer, *arguments: str, **changed: str) -> Process:
    env = environment(mesh, "knowledge", NAME) | {"PARLEY_JWKS_FILE": str(signer.jwks_file)} | changed
    command = (sys.executable, "-m", "services.knowledge", *arguments)
    with mesh.log_file(NAME).open("ab") as log:
        return await create_subprocess_exec(*command, env=env, cwd=PROJECT, stdout=PIPE, stderr=log)


@asynccontextmanager
async def serving(mesh: Mesh, signer: Signer) -> AsyncIterator[Process]:
    """The process, ready; stopped in the end unless it is gone."""
    process = await start(mesh, signer)
    try:
        async with channel_of(mesh, "operator") as channel, asyncio.timeout(30):
            watch = HealthStub(channel).Watch(HealthCheckRequest(), wait_for_ready=True)
            while (await watch.read()).status != HealthCheckResponse.SERVING:
                pass
            watch.cancel()
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0


@asynccontextmanager
async def client(mesh: Mesh) -> AsyncIterator[KnowledgeServiceStub]:
    async with channel_of(mesh, "edge") as channel:
        yield KnowledgeServiceStub(channel)


def me(signer: Signer, **claims: object) -> dict[str, object]:
    return {"metadata": signer.metadata(**{"tenant": TENANT, "user": USER} | claims), "timeout": 60}


async def upload(stub: KnowledgeServiceStub, signer: Signer, content: bytes) -> Document:
    async def parts() -> AsyncIterator[UploadDocumentRequest]:
        said = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        yield UploadDocumentRequest(file=UploadedFile(request_id=str(uuid4()), filename="rules.pdf", **said))
        for begin in range(0, len(content), 65_536):
            yield UploadDocumentRequest(chunk=content[begin : begin + 65_536])

    return (await stub.UploadDocument(parts(), **me(signer))).document


async def watched(stub: KnowledgeServiceStub, signer: Signer, document: Document) -> list[Document]:
    request = WatchDocumentRequest(document_id=document.id)
    return [answer.document async for answer in stub.WatchDocument(request, **me(signer))]


async def vectors(mesh: Mesh) -> int:
    milvus = AsyncMilvusClient(f"http://{mesh.address('milvus')}")
    [count] = await milvus.query(f"passages_{FIRST.id}", filter="", output_fields=["count(*)"])
    await milvus.close()
    return count["count(*)"]


def originals(mesh: Mesh) -> list[Path]:
    return [path for path in (mesh.data_dir / "s3" / "buckets" / BUCKET).rglob("*") if path.is_file()]


async def test_a_document_goes_all_the_way_in_and_out(mesh: Mesh, triton: Triton, signer: Signer) -> None:
    async with serving(mesh, signer), client(mesh) as stub:
        document = await upload(stub, signer, pdf(PAGES))
        *_, last = await watched(stub, signer, document)
        assert (last.state, last.content_type, last.progress.pages) == (DOCUMENT_STATE_INDEXED, "application/pdf", 79)
        assert await vectors(mesh) == last.progress.passages == last.progress.passages_indexed
        found = await stub.Search(SearchRequest(query="permit 7919", limit=3), **me(signer))
        assert (1, "rules.pdf") in [(passage.page, passage.filename) for passage in found.passages]
        stranger = me(signer, tenant=uuid4())
        assert list((await stub.Search(SearchRequest(query="fee of permit 7919"), **stranger)).passages) == []
        await stub.DeleteDocument(DeleteDocumentRequest(document_id=document.id), **me(signer))
        async with asyncio.timeout(5):
            while await vectors(mesh) or originals(mesh):
                await asyncio.sleep(0.05)


async def test_indexing_goes_on_after_the_process_is_killed(mesh: Mesh, triton: Triton, signer: Signer) -> None:
    triton.gate.clear()
    triton.halted.clear()
    triton.free = 2
    async with serving(mesh, signer) as process, client(mesh) as stub:
        document = await upload(stub, signer, pdf(PAGES))
        async with asyncio.timeout(30):
            await triton.halted.wait()
        process.kill()
        await process.wait()
    triton.gate.set()
    async with serving(mesh, signer), client(mesh) as stub:
        *_, last = await watched(stub, signer, document)
        assert last.state == DOCUMENT_STATE_INDEXED
        assert await vectors(mesh) == last.progress.passages == last.progress.passages_indexed
        await stub.DeleteDocument(DeleteDocumentRequest(document_id=document.id), **me(signer))


@pytest.mark.parametrize("holder", ["session", "notification", "auth"])
async def test_other_services_may_not_call(mesh: Mesh, signer: Signer, serving_once: None, holder: str) -> None:
    async with channel_of(mesh, holder) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await KnowledgeServiceStub(channel).Search(SearchRequest(query="x"), **me(signer))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
async def serving_once(mesh: Mesh, triton: Triton, signer: Signer) -> AsyncIterator[None]:
    async with serving(mesh, signer):
        yield


async def test_check_says_what_to_do(mesh: Mesh, signer: Signer) -> None:
    process = await start(mesh, signer, "--check", PARLEY_S3_ENDPOINT="http://127.0.0.1:9")
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    said = output.decode()
    assert process.returncode == 1
    assert re.search(r"^ok +PostgreSQL$", said, re.MULTILINE)
    assert re.search(r"^ok +Milvus$", said, re.MULTILINE)
    assert re.search(r"^failed +S3: ", said, re.MULTILINE)
    assert "create the bucket" in said
