"""Bad input at the edge: always a typed refusal with a reason, never INTERNAL, and nothing half-stored."""

import json
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest

from tests.mesh.test_conversations import create, reason_in

UUID = "00000000-0000-4000-8000-000000000000"


def body(**fields: Any) -> dict[str, Any]:
    return {"requestId": str(uuid4()), **fields}


REFUSED: Mapping[str, tuple[str, str, object, int, str]] = {
    "empty text": ("POST", "/v1/conversations/{id}/turns", body(text=""), 400, "INVALID_FIELD"),
    "blank text": ("POST", "/v1/conversations/{id}/turns", body(text=" \n\t "), 400, "INVALID_FIELD"),
    "oversized text": ("POST", "/v1/conversations/{id}/turns", body(text="x" * 16_001), 400, "INVALID_FIELD"),
    "no request id": ("POST", "/v1/conversations/{id}/turns", {"text": "hello"}, 400, "INVALID_FIELD"),
    "NUL in text": ("POST", "/v1/conversations", body(title="a\0b"), 400, "INVALID_FIELD"),
    "oversized title": ("POST", "/v1/conversations", body(title="x" * 201), 400, "INVALID_FIELD"),
    "unknown field": ("POST", "/v1/conversations", body(name="x"), 400, "MALFORMED_REQUEST"),
    "wrong type": ("POST", "/v1/conversations", body(title={"a": 1}), 400, "MALFORMED_REQUEST"),
    "no JSON": ("POST", "/v1/conversations", b"{", 400, "MALFORMED_REQUEST"),
    "invalid UTF-8": ("POST", "/v1/conversations", b'{"title": "\xff\xfe"}', 400, "MALFORMED_REQUEST"),
    "id that is none": ("GET", "/v1/conversations/nonsense", None, 400, "INVALID_FIELD"),
    "unknown conversation": ("GET", f"/v1/conversations/{UUID}", None, 404, "CONVERSATION_NOT_FOUND"),
    "unknown document": ("GET", f"/v1/documents/{UUID}", None, 404, "DOCUMENT_NOT_FOUND"),
    "deleting an unknown document": ("DELETE", f"/v1/documents/{UUID}", None, 404, "DOCUMENT_NOT_FOUND"),
    "unknown upload": ("POST", f"/v1/uploads/{UUID}:finish", {}, 404, "UPLOAD_NOT_FOUND"),
    "page too large": ("GET", "/v1/conversations?pageSize=101", None, 400, "INVALID_FIELD"),
    "page token of nobody": ("GET", "/v1/conversations?pageToken=abc", None, 400, "PAGE_TOKEN_INVALID"),
    "unknown path": ("GET", "/v1/nothing", None, 404, "ROUTE_NOT_FOUND"),
    "no such method": ("PUT", "/v1/conversations", {}, 404, "ROUTE_NOT_FOUND"),
    "oversized document": (
        "POST",
        "/v1/uploads",
        {"file": body(filename="a.txt", sizeBytes=str(33_554_433), sha256="0" * 64)},
        400,
        "DOCUMENT_TOO_LARGE",
    ),
    "search for nothing": ("POST", "/v1/documents:search", {"query": ""}, 400, "INVALID_FIELD"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_bad_input_is_refused_with_a_reason(rest: httpx.AsyncClient, user: Any, case: str) -> None:
    method, path, content, status, reason = REFUSED[case]
    conversation = await create(rest, user)
    sent = content if isinstance(content, bytes) else None if content is None else json.dumps(content)
    headers = {**user.headers, "content-type": "application/json"}
    response = await rest.request(method, path.format(id=conversation["id"]), content=sent, headers=headers)
    assert (response.status_code, reason_in(response)) == (status, reason), response.text
    assert "Traceback" not in response.text
    assert 'File "' not in response.text
    listed = (await rest.get("/v1/conversations", headers=user.headers)).json()["conversations"]
    assert [entry["id"] for entry in listed] == [conversation["id"]]
    messages = await rest.get(f"/v1/conversations/{conversation['id']}/messages", headers=user.headers)
    assert not messages.json().get("messages")


@pytest.mark.parametrize(
    ("header", "reason"),
    [({}, "TOKEN_MISSING"), ({"authorization": "Bearer nonsense"}, "TOKEN_INVALID")],
    ids=["missing", "not a token"],
)
async def test_a_call_without_a_good_token_is_refused(
    rest: httpx.AsyncClient, header: dict[str, str], reason: str
) -> None:
    response = await rest.get("/v1/conversations", headers=header)
    assert (response.status_code, reason_in(response)) == (401, reason), response.text


async def test_an_expired_token_is_refused(mesh: Any, rest: httpx.AsyncClient, user: Any) -> None:
    """Signed by the real key, and over since a minute."""
    import jwt

    claims = jwt.decode(user.token, options={"verify_signature": False})
    key = (mesh.data_dir / "secrets" / "signing-key.pem").read_bytes()
    kid = jwt.get_unverified_header(user.token)["kid"]
    old = jwt.encode({**claims, "exp": int(time.time()) - 120}, key, algorithm="EdDSA", headers={"kid": kid})
    response = await rest.get("/v1/me", headers={"authorization": f"Bearer {old}"})
    assert (response.status_code, reason_in(response)) == (401, "TOKEN_EXPIRED"), response.text


async def test_bytes_that_are_no_message_are_refused_over_grpc(edge: grpc.aio.Channel, user: Any) -> None:
    call = edge.unary_unary("/parley.session.v1.SessionService/GetConversation")
    for data in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):  # no field, then a string of invalid UTF-8
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(data, metadata=user.metadata)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_internal_service_is_not_reachable(edge: grpc.aio.Channel, user: Any) -> None:
    call = edge.unary_unary("/parley.session.v1.TurnRecordService/OpenTurn")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"", metadata=user.metadata)
    assert refused.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
