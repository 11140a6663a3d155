"""grpc-web through the edge, as browsers speak it, and by a foreign client."""

import asyncio
import base64
from uuid import UUID, uuid4

import httpx
import pytest
from google.protobuf.message import Message

from parley.auth.v1 import user_service_pb2
from parley.chat.v1 import chat_service_pb2
from parley.session.v1 import session_service_pb2
from stack.mesh import PROJECT
from stack.programs import script
from tests.conftest import Signer
from tests.edge.answers import web_refusal
from tests.edge.conftest import Edge
from tests.edge.servers import UNKNOWN_ID

GET_ME = "/parley.auth.v1.UserService/GetMe"
HEADERS = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


def frame(message: Message) -> bytes:
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4) + body


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """(flags, content) of each frame; 128 flags the trailers."""
    found = []
    while body:
        size = int.from_bytes(body[1:5])
        found.append((body[0], body[5 : 5 + size]))
        body = body[5 + size :]
    return found


async def test_unary_answer_ends_with_a_frame_of_trailers(rest: httpx.AsyncClient) -> None:
    response = await rest.post(GET_ME, content=frame(user_service_pb2.GetMeRequest()), headers=HEADERS)
    (flags, answer), (trailer_flags, trailers) = frames(response.content)
    assert (flags, trailer_flags) == (0, 128)
    assert UUID(user_service_pb2.GetMeResponse.FromString(answer).user.id)
    assert b"grpc-status:0\r\n" in trailers


async def test_text_form_is_understood(rest: httpx.AsyncClient) -> None:
    text = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
    body = base64.b64encode(frame(user_service_pb2.GetMeRequest()))
    response = await rest.post(GET_ME, content=body, headers=text)
    assert base64.b64decode(response.content[:8])[0] == 0


async def test_stream_arrives_word_by_word(edge: Edge, rest: httpx.AsyncClient) -> None:
    request = chat_service_pb2.StartTurnRequest(request_id=str(uuid4()), conversation_id=str(uuid4()), text="one two")
    edge.seen.next_word.set()
    path = "/parley.chat.v1.ChatService/StartTurn"
    async with rest.stream("POST", path, content=frame(request), headers=HEADERS) as response:
        pieces = response.aiter_bytes()
        assert b"one" in await anext(pieces)
        edge.seen.next_word.set()
        assert b"two" in await anext(pieces)
        assert b"grpc-status:0" in b"".join([piece async for piece in pieces])


async def test_refusals_carry_reason_and_plain_message(rest: httpx.AsyncClient) -> None:
    body, signed_out = frame(user_service_pb2.GetMeRequest()), {**HEADERS, "authorization": ""}
    assert web_refusal(await rest.post(GET_ME, content=body, headers=signed_out)) == (16, "TOKEN_MISSING")
    unknown = await rest.post("/parley.auth.v1.UserService/Nope", content=body, headers=HEADERS)
    assert web_refusal(unknown) == (12, "ROUTE_NOT_FOUND")
    of_service = await rest.post(
        "/parley.session.v1.SessionService/GetConversation",
        content=frame(session_service_pb2.GetConversationRequest(conversation_id=UNKNOWN_ID)),
        headers=HEADERS,
    )
    assert web_refusal(of_service) == (5, "CONVERSATION_NOT_FOUND")


@pytest.mark.parametrize("protocol", ["grpc", "grpcweb"])
async def test_buf_curl_needs_no_schema(edge: Edge, signer: Signer, protocol: str) -> None:
    process = await asyncio.create_subprocess_exec(
        script("buf"), "curl", "--protocol", protocol, "--cacert", str(edge.mesh.ca_file),
        "-H", f"authorization: Bearer {signer.token()}", edge.tls_url + GET_ME,
        cwd=PROJECT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b'"user"' in output
