"""Clients that are not ours: buf curl over gRPC and grpc-web, found by reflection, and plain HTTP."""

import asyncio
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from stack.mesh import PROJECT
from tests.mesh.running import PROGRAMS
from tests.mesh.test_conversations import create


def buf_curl(mesh: Any, user: Any, protocol: str, method: str, data: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            PROGRAMS / "buf", "curl", f"--protocol={protocol}", "--http2-prior-knowledge",
            "--header", f"authorization: Bearer {user.token}", "--data", json.dumps(data), f"{mesh.http}/{method}",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("protocol", ["grpc", "grpcweb"])
async def test_buf_curl_asks_a_question(mesh: Any, rest: httpx.AsyncClient, user: Any, protocol: str) -> None:
    conversation = await create(rest, user)
    data = {
        "requestId": str(uuid4()),
        "conversationId": conversation["id"],
        "text": "the egret",
        "options": {"model": "echo"},
    }
    asked = buf_curl(mesh, user, protocol, "parley.chat.v1.ChatService/StartTurn", data)
    assert asked.returncode == 0, asked.stderr
    events = [json.loads(part)["event"] for part in _objects(asked.stdout)]
    assert "the egret" in "".join(event.get("textDelta", {}).get("text", "") for event in events)
    assert "completed" in events[-1]


@pytest.mark.parametrize("protocol", ["grpc", "grpcweb"])
def test_buf_curl_sees_the_reason_of_a_refusal(mesh: Any, user: Any, protocol: str) -> None:
    data = {"conversationId": str(uuid4())}
    refused = buf_curl(mesh, user, protocol, "parley.session.v1.SessionService/GetConversation", data)
    assert refused.returncode != 0
    error = json.loads(refused.stderr)
    assert error["code"] == "not_found"
    (info,) = (detail["value"] for detail in error["details"] if detail["type"] == "google.rpc.ErrorInfo")
    padded = base64.b64decode(info + "=" * (-len(info) % 4))
    assert ErrorInfo.FromString(padded).reason == "CONVERSATION_NOT_FOUND"


async def test_rest_streams_a_turn_line_by_line(rest: httpx.AsyncClient, user: Any) -> None:
    conversation = await create(rest, user)
    question = {"requestId": str(uuid4()), "text": "tokens=10 tokens_per_s=20", "options": {"model": "echo"}}
    path = f"/v1/conversations/{conversation['id']}/turns"
    chunks = 0
    text = ""
    async with rest.stream("POST", path, json=question, headers=user.headers) as response:
        assert response.status_code == 200
        async for chunk in response.aiter_text():
            chunks += 1
            text += chunk
    events = [json.loads(line)["event"] for line in text.splitlines() if line]
    assert "completed" in events[-1]
    assert chunks > 5  # it came as it was made


async def test_rest_uploads_in_chunks_finds_and_deletes(rest: httpx.AsyncClient, user: Any, stranger: Any) -> None:
    content = b"# Lighthouse\n\nThe lighthouse of Skerry has forty-one steps and a green lamp.\n"
    file = {
        "requestId": str(uuid4()),
        "filename": "lighthouse.md",
        "sizeBytes": str(len(content)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    begun = await rest.post("/v1/uploads", json={"file": file}, headers=user.headers)
    upload_id = begun.json()["uploadId"]
    for offset in (0, 40):
        chunk = base64.b64encode(content[offset : offset + 40]).decode()
        body = {"offsetBytes": str(offset), "chunk": chunk}
        appended = await rest.post(f"/v1/uploads/{upload_id}:append", json=body, headers=user.headers)
        assert appended.status_code == 200, appended.text
    finished = await rest.post(f"/v1/uploads/{upload_id}:finish", json={}, headers=user.headers)
    document_id = finished.json()["document"]["id"]

    states = []
    async with rest.stream("GET", f"/v1/documents/{document_id}:watch", headers=user.headers) as watched:
        async for line in watched.aiter_lines():
            if line:
                states.append(json.loads(line)["document"]["state"])
    assert states[-1] == "DOCUMENT_STATE_INDEXED"
    async with asyncio.timeout(20), rest.stream("GET", "/v1/notifications:watch", headers=user.headers) as feed:
        told = json.loads(await anext(line async for line in feed.aiter_lines() if line))["notification"]
    assert told["documentReady"] == {"documentId": document_id, "filename": "lighthouse.md", "passages": 1}

    search = {"query": "how many steps has the lighthouse"}
    found = (await rest.post("/v1/documents:search", json=search, headers=user.headers)).json()["passages"]
    assert found[0]["documentId"] == document_id
    assert found[0]["headings"] == ["Lighthouse"]
    foreign = (await rest.post("/v1/documents:search", json=search, headers=stranger.headers)).json()
    assert not foreign.get("passages")
    assert (await rest.get(f"/v1/documents/{document_id}", headers=stranger.headers)).status_code == 404
    assert (await rest.delete(f"/v1/documents/{document_id}", headers=stranger.headers)).status_code == 404

    assert (await rest.delete(f"/v1/documents/{document_id}", headers=user.headers)).status_code == 200
    gone = (await rest.post("/v1/documents:search", json=search, headers=user.headers)).json()
    assert not gone.get("passages")


async def test_rest_shares_moves_and_knows_a_duplicate(rest: httpx.AsyncClient, user: Any, stranger: Any) -> None:
    content = base64.b64encode(b"The gull of Skerry stands on one leg.").decode()
    file = {"filename": "gull.txt", "sizeBytes": "37", "sha256": hashlib.sha256(base64.b64decode(content)).hexdigest()}
    described = file | {"requestId": str(uuid4()), "collection": "it's", "visibility": "VISIBILITY_PRIVATE"}
    upload_id = (await rest.post("/v1/uploads", json={"file": described}, headers=user.headers)).json()["uploadId"]
    body = {"offsetBytes": "0", "chunk": content}
    await rest.post(f"/v1/uploads/{upload_id}:append", json=body, headers=user.headers)
    finished = await rest.post(f"/v1/uploads/{upload_id}:finish", json={}, headers=user.headers)
    path = f"/v1/documents/{finished.json()['document']['id']}"

    again = {"file": file | {"requestId": str(uuid4())}}
    refused = await rest.post("/v1/uploads", json=again, headers=user.headers)
    assert refused.status_code == 409, refused.text
    [info] = [detail for detail in refused.json()["details"] if "reason" in detail]
    assert (info["reason"], info["metadata"]) == ("DOCUMENT_DUPLICATE", {"document_id": path.rpartition("/")[2]})
    assert (await rest.post("/v1/uploads", json=again, headers=stranger.headers)).status_code == 200

    shared = await rest.patch(path, json={"visibility": "VISIBILITY_ORGANISATION"}, headers=user.headers)
    assert (shared.json()["document"]["visibility"], shared.json()["document"]["collection"]) == (
        "VISIBILITY_ORGANISATION", "it's",
    )  # fmt: skip
    found = (await rest.get("/v1/collections", headers=user.headers)).json()["collections"]
    assert {"name": "it's", "documents": 1} in found
    listed = await rest.get("/v1/documents", params={"collection": "it's"}, headers=user.headers)
    assert [document["filename"] for document in listed.json()["documents"]] == ["gull.txt"]
    moved = await rest.patch(f"{path}?update_mask=collection", json={}, headers=user.headers)
    assert moved.json()["document"]["collection"] == "", moved.text
    for call in (
        rest.patch(path, json={"collection": "mine"}, headers=stranger.headers),
        rest.patch(path, json={"visibility": "VISIBILITY_PRIVATE"}, headers=stranger.headers),
    ):
        assert (await call).status_code == 404
    assert (await rest.get("/v1/collections", headers=stranger.headers)).json().get("collections", []) == []
    assert (await rest.delete(path, headers=user.headers)).status_code == 200


WORDS = " ".join(str(number) for number in range(1, 41))
COUNTING = "tokens=40 tokens_per_s=40"
"""A question whose answer is known."""


def readme_blocks() -> list[str]:
    """What the README shows of calling: searching, asking, going on, the rest of a turn, a program."""
    section = (PROJECT / "README.md").read_text().partition("## Calling it")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks] == ["", "", "", "", "python"]
    return [code for _, code in blocks]


def changed(code: str, **pieces: str) -> str:
    for old, new in pieces.values():
        assert old in code
        code = code.replace(old, new)
    return code


def text_of(events: list[Any]) -> str:
    return "".join(event.get("textDelta", {}).get("text", "") for event in events)


def test_the_commands_that_the_readme_shows_work(mesh: Any) -> None:
    """Cut off, and resumed by other means: what was heard and what came after are together the whole turn."""
    searching, asking, going_on, rest = readme_blocks()[:4]
    going_on = changed(
        going_on,
        text=("Where may I park?", COUNTING),
        model=('{\\"readerGrace', '{\\"model\\": \\"echo\\", \\"readerGrace'),
    )
    commands = changed(searching + asking + going_on + rest, edge=("127.0.0.1:8080", mesh.http.removeprefix("http://")))
    called = subprocess.run(
        ["bash", "-eu", "-c", commands],
        cwd=PROJECT,
        env={**os.environ, "PARLEY_DATA_DIR": str(mesh.data_dir)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert called.returncode == 0, called.stderr
    found, *printed = [json.loads(part) for part in _objects(called.stdout)]
    assert "degraded" not in found
    events = [each["event"] for each in printed if "event" in each]
    ends = [number for number, event in enumerate(events, 1) if "completed" in event]
    asked, resumed = events[: ends[0]], events[ends[0] : ends[1]]
    assert text_of(asked)
    assert [int(event["sequence"]) for event in resumed] == list(range(1, len(resumed) + 1))
    assert (text_of(resumed), len(resumed)) == (WORDS, 40 + 4)
    assert events[ends[1] :] == resumed[5:]  # over grpc-web
    plain, rated, cancelled = [each["turn"] for each in printed if "turn" in each]
    assert (plain["state"], plain["usage"]["completionTokens"]) == ("TURN_STATE_COMPLETED", 40)
    assert (plain["rating"], rated["rating"]) == ("TURN_RATING_UNSPECIFIED", "TURN_RATING_GOOD")
    assert rated == {**plain, "rating": rated["rating"], "ratingReason": "It names the garage."}
    assert cancelled == rated


@asynccontextmanager
async def wire_that_breaks(address: str, after_bytes: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A way to the edge whose first connection is cut after so many bytes of answer; what each one brought."""
    brought: list[int] = []

    async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter, connection: int = -1) -> None:
        with suppress(OSError):
            while data := await source.read(512):
                to.write(data)
                await to.drain()
                if connection >= 0:
                    brought[connection] += len(data)
                if connection == 0 and brought[0] > after_bytes:
                    break
        to.transport.abort()

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        edge, to_edge = await asyncio.open_connection(*address.split(":"))
        brought.append(0)
        await asyncio.gather(copy(client, to_edge), copy(edge, to_client, len(brought) - 1))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield ":".join(map(str, server.sockets[0].getsockname())), brought


async def test_the_program_that_the_readme_shows_survives_a_broken_connection(mesh: Any) -> None:
    async with wire_that_breaks(mesh.http.removeprefix("http://"), 2000) as (address, brought):
        host, _, port = address.partition(":")
        program = changed(
            readme_blocks()[4],
            edge=('"127.0.0.1", 8080', f'"{host}", {port}'),
            text=("Where may I park?", COUNTING),
            options=(
                "TurnOptions(max_output_tokens=200)",
                'TurnOptions(model="echo", reader_grace=timedelta(minutes=1))',
            ),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"from datetime import timedelta\n{program}",
            env={**os.environ, "TOKEN": mesh.parley("token").stdout.strip()},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode()) == (0, WORDS), err.decode()
    assert len(brought) == 2
    assert min(brought) > 500


async def test_a_browser_from_elsewhere_may_ask_first(rest: httpx.AsyncClient) -> None:
    headers = {
        "origin": "http://localhost:5173",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-grpc-web",
    }
    allowed = await rest.options("/parley.chat.v1.ChatService/StartTurn", headers=headers)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:5173"
    foreign = await rest.options("/parley.chat.v1.ChatService/StartTurn", headers={**headers, "origin": "http://evil"})
    assert "access-control-allow-origin" not in foreign.headers


async def test_keys_are_published(rest: httpx.AsyncClient) -> None:
    keys = (await rest.get("/.well-known/jwks.json")).json()["keys"]
    assert keys[0]["alg"] == "EdDSA"
    assert keys[0]["kty"] == "OKP"


async def test_health_is_answered_at_the_edge(mesh: Any, user: Any, rest: httpx.AsyncClient) -> None:
    assert (await rest.get("/healthz")).status_code == 200
    checked = buf_curl(mesh, user, "grpc", "grpc.health.v1.Health/Check", {})
    assert json.loads(checked.stdout)["status"] == "SERVING", checked.stderr


def _objects(text: str) -> list[str]:
    """The JSON objects of a text that holds one after the other."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while place < len(text.rstrip()):
        _, end = decoder.raw_decode(text, place)
        found.append(text[place:end])
        place = end + len(text[end:]) - len(text[end:].lstrip())
    return found
