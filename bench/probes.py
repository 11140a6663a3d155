"""Does an organisation, or a member's private document, ever leak a byte?

20,000 calls of every RPC of knowledge, as an outsider, as a colleague and as nobody, about what somebody else has: its
ids, names, page tokens, digests and texts, and hostile strings. What is secret is never sent, so wherever a byte of it
comes back, in an answer, a refusal or metadata, it leaked. Goal: 0.

`python -m bench.probes [how many]`; ends with status 1 when something leaked or an answer was not typed.
"""

import asyncio
import hashlib
import json
import secrets
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc

from bench.forged import Bait, Forged, Forger, services
from bench.mesh import RunningMesh, machine, running_mesh
from parley.auth.v1.auth_service_pb2 import LoginRequest, RegisterRequest
from parley.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from parley.knowledge.v1 import knowledge_service_pb2 as knowledge
from parley.knowledge.v1.document_pb2 import DOCUMENT_STATE_INDEXED, VISIBILITY_PRIVATE, Document
from parley.knowledge.v1.faq_service_pb2 import CreateFaqRequest
from parley.knowledge.v1.faq_service_pb2_grpc import FaqServiceStub
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from stack.mesh import Mesh, Options
from stack.postgres import connect

T = TypeVar("T")
PACKAGE = "parley.knowledge.v1"
_PROBES = 20_000
_AT_ONCE = 12
_TIMEOUT_S = 20.0
_LISTEN_S = 1.0
_ANSWERS = 20  # of a stream
_LOST = "Internal error from Core"  # of this client, when the refusal came while it wrote: what it was is lost
_UNTYPED = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Person:
    """Somebody with an account."""

    tenant_id: str
    email: str
    password: str
    metadata: Metadata


@dataclass
class Planted:
    """What the first organisation has: `bait` is known outside, `secrets` are not."""

    bait: Bait = field(default_factory=Bait)
    secrets: set[str] = field(default_factory=set)
    private_secrets: set[str] = field(default_factory=set)
    private_ids: set[str] = field(default_factory=set)
    documents: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Verdict:
    """What the probes brought to light."""

    codes: dict[str, Counter[str]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def register(edge: grpc.aio.Channel) -> Person:
    email, password = f"{uuid.uuid4()}@bench.example", secrets.token_hex()
    request = RegisterRequest(
        request_id=str(uuid.uuid4()), organisation_name="bench", email=email, password=password, display_name="bench"
    )
    response = await AuthServiceStub(edge).Register(request)
    return Person(response.user.tenant_id, email, password, _metadata(response.tokens.access_token))


async def colleague(edge: grpc.aio.Channel, data_dir: Path, of: Person) -> Person:
    """A new member of the same organisation. There is no RPC for that yet: their row is moved."""
    person = await register(edge)
    ports = json.loads((data_dir / "endpoints.json").read_text())["ports"]
    record = await connect(Mesh(data_dir=data_dir, options=Options(), ports=ports))
    try:
        await record.execute("DELETE FROM auth.sessions WHERE tenant_id = $1", uuid.UUID(person.tenant_id))
        move = "UPDATE auth.users SET tenant_id = $2, role = 'member' WHERE tenant_id = $1"
        await record.execute(move, uuid.UUID(person.tenant_id), uuid.UUID(of.tenant_id))
    finally:
        await record.close()
    login = await AuthServiceStub(edge).Login(LoginRequest(email=person.email, password=person.password))
    return Person(of.tenant_id, person.email, person.password, _metadata(login.tokens.access_token))


def _metadata(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


async def plant(channel: grpc.aio.Channel, owner: Person, own_ids: Sequence[str]) -> Planted:
    """Documents of every kind and FAQs, half of them known outside by name and id, and an upload that waits."""
    stub = KnowledgeServiceStub(channel)
    secret = lambda: f"zq{secrets.token_hex(8)}"  # noqa: E731
    planted = Planted()
    ids, request_ids, names, texts, digests = (list[str]() for _ in range(5))
    for number in range(8):
        known, private = number % 2 == 0, number % 4 >= 2
        words = {secret() for _ in range(4)}
        said = f"The harbour of town {number} is dredged in May. " + " ".join(sorted(words))
        hidden_name, hidden_place, request_id = secret(), secret(), str(uuid.uuid4())
        content = said.encode()
        described = knowledge.UploadedFile(
            request_id=request_id,
            filename=f"harbour-{number}.txt" if known else f"{hidden_name}.txt",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            collection=f"Harbours {number}" if known else hidden_place,
            visibility=VISIBILITY_PRIVATE if private else 0,
        )
        parts = [knowledge.UploadDocumentRequest(file=described), knowledge.UploadDocumentRequest(chunk=content)]
        document = (await stub.UploadDocument(_stream(parts), metadata=owner.metadata)).document
        hidden = words | ({hidden_name, hidden_place, document.id} if not known else set()) | {document.user_id}
        planted.secrets |= hidden
        texts.append(said.partition(" zq")[0])
        if known:
            ids.append(document.id)
            request_ids.append(request_id)
            names += [described.filename, described.collection]
        digests.append(described.sha256)
        if private:
            planted.private_secrets |= hidden - {document.user_id}
            planted.private_ids.add(document.id)
        planted.documents[document.id] = (await _indexed(stub, owner, document)).SerializeToString(deterministic=True)
    for number in range(2):
        word, request_id, question = secret(), str(uuid.uuid4()), f"Who dredges harbour {number}?"
        asked = CreateFaqRequest(request_id=request_id, question=question, answer=f"{word} does.")
        faq = (await FaqServiceStub(channel).CreateFaq(asked, metadata=owner.metadata)).faq
        planted.secrets |= {word, faq.id} if number else {word}
        texts.append(question)
        ids += [] if number else [faq.id]
    upload = knowledge.UploadedFile(
        request_id=str(uuid.uuid4()), filename=f"{secret()}.txt", size_bytes=5000, sha256="0" * 64
    )
    begun = await stub.CreateUpload(knowledge.CreateUploadRequest(file=upload), metadata=owner.metadata)
    planted.secrets.add(upload.filename)
    planted.private_secrets.add(upload.filename)
    planted.private_ids.add(begun.upload_id)
    ids.append(begun.upload_id)
    page = await stub.ListDocuments(knowledge.ListDocumentsRequest(page_size=1), metadata=owner.metadata)
    collections = await stub.ListCollections(knowledge.ListCollectionsRequest(page_size=1), metadata=owner.metadata)
    tokens = (page.next_page_token, collections.next_page_token)
    planted.bait = Bait(ids, request_ids, names, texts, tokens, digests, own_ids)
    return planted


async def probe(
    channel: grpc.aio.Channel, data_dir: Path, edge: grpc.aio.Channel, count: int, seed: int = 1
) -> Verdict:
    """So many calls over `channel`; accounts are made at the edge."""
    owner, outsider = await register(edge), await register(edge)
    friend = await colleague(edge, data_dir, owner)
    stub = KnowledgeServiceStub(channel)
    content = b"The harbour of our own town."
    own = knowledge.UploadedFile(request_id=str(uuid.uuid4()), filename="own.txt", size_bytes=len(content))
    own.sha256 = hashlib.sha256(content).hexdigest()
    parts = [knowledge.UploadDocumentRequest(file=own), knowledge.UploadDocumentRequest(chunk=content)]
    document = (await stub.UploadDocument(_stream(parts), metadata=outsider.metadata)).document
    planted = await plant(channel, owner, [document.id])
    methods = [method for service in services(PACKAGE) for method in service.methods]
    every_id = {*planted.bait.ids, *planted.documents}
    verdict = Verdict()

    async def one(call: Forged, who: Metadata, hidden: set[str], ids: set[str]) -> None:
        code, answer = await _answer(channel, call, who)
        name = f"{call.method.containing_service.name}.{call.method.name}"
        verdict.codes.setdefault(name, Counter())[code.name] += 1
        if found := [word for word in hidden if word.encode() in answer.lower()]:
            verdict.leaks.append(f"{call.say()}: {found}")
        is_ok, is_anonymous = code is grpc.StatusCode.OK, not who
        if code in _UNTYPED or (is_ok and (is_anonymous or call.names_one_of(sorted(ids)))):
            verdict.wrong.append(f"{call.say()}: {code.name} {answer[:200]!r}")

    people = (
        (outsider.metadata, planted.secrets, every_id),
        (outsider.metadata, planted.secrets, every_id),
        (friend.metadata, planted.private_secrets, planted.private_ids),
        ((), planted.secrets, every_id),
    )
    shares = (0.5, 0.2, 0.25, 0.05)
    forged = (
        (call, who, hidden, ids)
        for number, ((who, hidden, ids), share) in enumerate(zip(people, shares, strict=True))
        for call in Forger(planted.bait, methods, seed + number).calls(int(count * share))
    )

    async def work() -> None:
        for call in forged:
            await one(*call)

    async with asyncio.TaskGroup() as workers:
        for _ in range(_AT_ONCE):
            workers.create_task(work())
    for document_id, before in planted.documents.items():
        request = knowledge.GetDocumentRequest(document_id=document_id)
        after = (await stub.GetDocument(request, metadata=owner.metadata)).document
        if after.SerializeToString(deterministic=True) != before:
            verdict.wrong.append(f"{document_id} was changed: {after}")
    return verdict


async def _answer(channel: grpc.aio.Channel, call: Forged, who: Metadata) -> tuple[grpc.StatusCode, bytes]:
    """The status, and every byte that came back."""
    sent = [request.SerializeToString() for request in call.requests]
    limit_s = _LISTEN_S if call.method.server_streaming else _TIMEOUT_S
    heard: list[bytes] = []
    try:
        if call.method.server_streaming:
            stream = channel.unary_stream(call.path)(sent[0], metadata=who, timeout=limit_s)
            async for answer in stream:
                heard.append(answer)
                if len(heard) == _ANSWERS:
                    stream.cancel()
                    return grpc.StatusCode.OK, b"".join(heard)
        elif call.method.client_streaming:
            heard.append(await _sent(channel, call.path, sent, who))
        else:
            heard.append(await channel.unary_unary(call.path)(sent[0], metadata=who, timeout=limit_s))
    except grpc.aio.AioRpcError as error:
        told = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
        heard += [value if isinstance(value, bytes) else value.encode() for _, value in told]
        heard.append((error.details() or "").encode())
        if heard[:-1] and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and call.method.server_streaming:
            return grpc.StatusCode.OK, b"".join(heard)
        return error.code(), b"".join(heard)
    return grpc.StatusCode.OK, b"".join(heard)


async def _sent(channel: grpc.aio.Channel, path: str, parts: Sequence[bytes], who: Metadata) -> bytes:
    """The answer to a stream, which may be refused before its end."""
    while True:
        try:
            answer: bytes = await channel.stream_unary(path)(_stream(parts), metadata=who, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.details() != _LOST:
                raise
        else:
            return answer


async def _stream(parts: Sequence[T]) -> AsyncIterator[T]:
    for part in parts:
        yield part


async def _indexed(stub: KnowledgeServiceStub, who: Person, document: Document) -> Document:
    request = knowledge.WatchDocumentRequest(document_id=document.id)
    last = document
    async for answer in stub.WatchDocument(request, metadata=who.metadata, timeout=60):
        last = answer.document
    assert last.state == DOCUMENT_STATE_INDEXED, last
    return last


async def measure(mesh: RunningMesh, count: int) -> bool:
    began_s = time.monotonic()
    async with mesh.edge_channel() as edge:
        verdict = await probe(edge, mesh.data_dir, edge, count)
    print(f"{count:,} probes across organisations, through the edge, in {time.monotonic() - began_s:.0f} s")
    for name, codes in sorted(verdict.codes.items()):
        print(f"  {name:<36} {'  '.join(f'{code} {count}' for code, count in codes.most_common())}")
    for line in (*verdict.leaks[:20], *verdict.wrong[:20]):
        print(f"  {line}")
    print(f"  answers with foreign bytes: {len(verdict.leaks)} (goal 0)   wrong answers: {len(verdict.wrong)} (goal 0)")
    return not (verdict.leaks or verdict.wrong)


def main(count: int = _PROBES) -> bool:
    with running_mesh("--chat-models=echo") as mesh:
        return asyncio.run(measure(mesh, count))


if __name__ == "__main__":
    print(machine())
    sys.exit(0 if main(*map(int, sys.argv[1:2])) else 1)
