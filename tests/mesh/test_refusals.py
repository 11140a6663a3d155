"""Bad input at the edge: always a typed refusal with a reason, never INTERNAL, and nothing half-stored."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import httpx
import jwt
import pytest
import redis.asyncio as redis
from google.rpc.error_details_pb2 import ErrorInfo

from parley.chat.v1.chat_service_pb2 import CancelTurnRequest, GetTurnRequest, RateTurnRequest, ResumeTurnRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import TurnEvent, TurnRating, TurnState
from tests.mesh.test_conversations import create, reason_in
from tests.mesh.test_turns import events_of, new_conversation, question
from tests.refusals import details_of, failure_of, reason_of

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
    "unknown turn": ("GET", f"/v1/turns/{UUID}", None, 404, "TURN_NOT_FOUND"),
    "resuming an unknown turn": ("GET", f"/v1/turns/{UUID}/events", None, 404, "TURN_NOT_FOUND"),
    "cancelling an unknown turn": ("POST", f"/v1/turns/{UUID}:cancel", {}, 404, "TURN_NOT_FOUND"),
    "rating an unknown turn": ("POST", f"/v1/turns/{UUID}:rate", {"rating": 1}, 404, "TURN_NOT_FOUND"),
    "turn id that is none": ("GET", "/v1/turns/nonsense/events", None, 400, "INVALID_FIELD"),
    "negative sequence": ("GET", f"/v1/turns/{UUID}/events?afterSequence=-1", None, 400, "MALFORMED_REQUEST"),
    "sequence of 2^63": ("GET", f"/v1/turns/{UUID}/events?afterSequence={2**63}", None, 400, "INVALID_FIELD"),
    "sequence of 2^64": ("GET", f"/v1/turns/{UUID}/events?afterSequence={2**64}", None, 400, "MALFORMED_REQUEST"),
    "rating of no value": ("POST", f"/v1/turns/{UUID}:rate", {"rating": 7}, 400, "INVALID_FIELD"),
    "rating of no name": ("POST", f"/v1/turns/{UUID}:rate", {"rating": "GREAT"}, 400, "MALFORMED_REQUEST"),
    "oversized reason": ("POST", f"/v1/turns/{UUID}:rate", {"reason": "x" * 1001}, 400, "INVALID_FIELD"),
    "NUL in a reason": ("POST", f"/v1/turns/{UUID}:rate", {"reason": "a\0b"}, 400, "INVALID_FIELD"),
    "huge reason": ("POST", f"/v1/turns/{UUID}:rate", {"reason": "x" * 3_000_000}, 413, "REQUEST_TOO_LARGE"),
    "resuming by POST": ("POST", f"/v1/turns/{UUID}/events", {}, 404, "ROUTE_NOT_FOUND"),
    "edit of an unknown turn": (
        "POST",
        "/v1/conversations/{id}/turns",
        body(text="x", replacesTurnId=UUID, options={"model": "echo"}),
        404,
        "TURN_NOT_FOUND",
    ),
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


def signed(mesh: Any, user: Any, **claims: Any) -> dict[str, str]:
    """The headers of this user's token with other claims, signed by the real key."""
    key = (mesh.data_dir / "secrets" / "signing-key.pem").read_bytes()
    kid = jwt.get_unverified_header(user.token)["kid"]
    own = jwt.decode(user.token, options={"verify_signature": False})
    return {"authorization": f"Bearer {jwt.encode({**own, **claims}, key, algorithm='EdDSA', headers={'kid': kid})}"}


async def test_an_expired_token_is_refused(mesh: Any, rest: httpx.AsyncClient, user: Any) -> None:
    response = await rest.get("/v1/me", headers=signed(mesh, user, exp=int(time.time()) - 120))
    assert (response.status_code, reason_in(response)) == (401, "TOKEN_EXPIRED"), response.text


@asynccontextmanager
async def running_turn(edge: grpc.aio.Channel, user: Any) -> AsyncIterator[str]:
    """The id of a turn that is being read; stopped in the end."""
    asked = question(await new_conversation(edge, user), "tokens=4000 tokens_per_s=20")
    call = aiter(ChatServiceStub(edge).StartTurn(asked, metadata=user.metadata))
    turn_id = (await anext(call)).event.turn_id
    yield turn_id
    await ChatServiceStub(edge).CancelTurn(CancelTurnRequest(turn_id=turn_id), metadata=user.metadata)


async def ended_turn(edge: grpc.aio.Channel, user: Any) -> list[TurnEvent]:
    return await events_of(edge, user, question(await new_conversation(edge, user), "the secret heron"))


async def test_somebody_elses_turn_is_like_one_that_is_not(
    mesh: Any, edge: grpc.aio.Channel, user: Any, stranger: Any
) -> None:
    """Ended or running, of another organisation or the same one, whatever is asked of it."""
    colleague = signed(mesh, user, sub=str(uuid4()))
    chat = ChatServiceStub(edge)
    ended = (await ended_turn(edge, user))[0].turn_id
    async with running_turn(edge, user) as running:
        for headers in (stranger.headers, colleague):
            for turn_id in (ended, running, str(uuid4())):
                metadata = tuple(headers.items())
                for refused in (
                    chat.ResumeTurn(ResumeTurnRequest(turn_id=turn_id), metadata=metadata).read(),
                    chat.ResumeTurn(ResumeTurnRequest(turn_id=turn_id, after_sequence=2), metadata=metadata).read(),
                    chat.CancelTurn(CancelTurnRequest(turn_id=turn_id), metadata=metadata),
                    chat.GetTurn(GetTurnRequest(turn_id=turn_id), metadata=metadata),
                    chat.RateTurn(RateTurnRequest(turn_id=turn_id, rating="TURN_RATING_BAD"), metadata=metadata),
                ):
                    error = await failure_of(refused)
                    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "You have no such turn.")
                    assert details_of(error) == {"ErrorInfo": ErrorInfo(reason="TURN_NOT_FOUND", domain="parley")}
        for turn_id, state in ((ended, TurnState.TURN_STATE_COMPLETED), (running, TurnState.TURN_STATE_RUNNING)):
            turn = (await chat.GetTurn(GetTurnRequest(turn_id=turn_id), metadata=user.metadata)).turn
            assert (turn.state, turn.rating) == (state, TurnRating.TURN_RATING_UNSPECIFIED)


@pytest.mark.parametrize("beyond", [4001, 2**63 - 1])
async def test_a_number_that_never_was_is_refused(edge: grpc.aio.Channel, user: Any, beyond: int) -> None:
    events = await ended_turn(edge, user)
    async with running_turn(edge, user) as running:
        for turn_id in (events[0].turn_id, running):
            request = ResumeTurnRequest(turn_id=turn_id, after_sequence=beyond)
            error = await failure_of(ChatServiceStub(edge).ResumeTurn(request, metadata=user.metadata).read())
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "SEQUENCE_BEYOND_LOG")
    request = ResumeTurnRequest(turn_id=events[0].turn_id, after_sequence=len(events))
    assert [each async for each in ChatServiceStub(edge).ResumeTurn(request, metadata=user.metadata)] == []


async def test_a_turn_is_stopped_once_however_many_stop_it(
    edge: grpc.aio.Channel, rest: httpx.AsyncClient, user: Any
) -> None:
    chat = ChatServiceStub(edge)
    async with running_turn(edge, user) as turn_id:
        request = CancelTurnRequest(turn_id=turn_id)
        one, other, by_rest = await asyncio.gather(
            chat.CancelTurn(request, metadata=user.metadata),
            chat.CancelTurn(request, metadata=user.metadata),
            rest.post(f"/v1/turns/{turn_id}:cancel", json={}, headers=user.headers),
        )
        assert one.turn == other.turn
        assert one.turn.state == TurnState.TURN_STATE_CANCELLED
        assert by_rest.json()["turn"]["endTime"] == one.turn.end_time.ToJsonString()
    completed = CancelTurnRequest(turn_id=(await ended_turn(edge, user))[0].turn_id)
    turn = (await chat.CancelTurn(completed, metadata=user.metadata)).turn
    assert turn.state == TurnState.TURN_STATE_COMPLETED


async def test_a_turn_whose_log_is_over_is_refused_and_still_known(
    mesh: Any, edge: grpc.aio.Channel, user: Any
) -> None:
    events = await ended_turn(edge, user)
    turn_id = events[0].turn_id
    password = (mesh.data_dir / "secrets" / "valkey-chat").read_text().strip()
    async with redis.from_url(f"redis://chat@{mesh.endpoints['parts']['valkey'][0]}/0", password=password) as valkey:
        assert await valkey.unlink(f"turn:{{{turn_id}}}:events")
    for after in (0, len(events), 4001):
        request = ResumeTurnRequest(turn_id=turn_id, after_sequence=after)
        error = await failure_of(ChatServiceStub(edge).ResumeTurn(request, metadata=user.metadata).read())
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "TURN_NOT_RESUMABLE")
    turn = (await ChatServiceStub(edge).GetTurn(GetTurnRequest(turn_id=turn_id), metadata=user.metadata)).turn
    assert turn.message_id == events[-1].completed.message_id


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
