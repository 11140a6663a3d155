"""REST and JSON through the edge: every shape of request, and streams as lines."""

import base64
import json
from uuid import UUID, uuid4

import httpx
import pytest

from tests.edge.answers import rest_refusal
from tests.edge.conftest import Edge
from tests.edge.servers import UNAVAILABLE_PAGE_SIZE, UNKNOWN_ID

CONVERSATION_ID = "c0ffee00-0000-4000-8000-00000000d0d0"
MALFORMED = (400, "MALFORMED_REQUEST")


def creation(**fields: object) -> dict[str, object]:
    return {"requestId": str(uuid4()), **fields}


async def test_fields_are_in_lower_camel_case_and_empty_ones_are_printed(rest: httpx.AsyncClient) -> None:
    response = await rest.get("/v1/conversations", params={"pageSize": 3})
    assert response.json() == {"conversations": [], "nextPageToken": "size 3"}
    created = await rest.post("/v1/conversations", json=creation(title='é"𝄞'))
    assert created.json() == {"conversation": {"id": "", "title": 'é"𝄞'}}


async def test_names_of_the_contract_are_taken_too(rest: httpx.AsyncClient) -> None:
    response = await rest.get("/v1/conversations", params={"page_size": 4})
    assert response.json()["nextPageToken"] == "size 4"
    body = {"request_id": str(uuid4()), "title": "kept"}
    assert (await rest.post("/v1/conversations", json=body)).json()["conversation"]["title"] == "kept"


async def test_path_names_the_object(rest: httpx.AsyncClient) -> None:
    response = await rest.get(f"/v1/conversations/{CONVERSATION_ID}")
    assert response.json()["conversation"]["id"] == CONVERSATION_ID


@pytest.mark.parametrize("query", ["", "?updateMask=title", "?update_mask=title"])
async def test_change_may_name_its_fields_in_the_query(rest: httpx.AsyncClient, query: str) -> None:
    path = f"/v1/conversations/{CONVERSATION_ID}"
    response = await rest.patch(path + query, json={"title": "new"})
    assert response.json() == {"conversation": {"id": CONVERSATION_ID, "title": "new"}}
    assert rest_refusal(await rest.patch(f"{path}?updateMask=id", json={"title": "new"})) == (400, "INVALID_FIELD")


async def test_bytes_are_base64_and_64_bit_numbers_are_strings(rest: httpx.AsyncClient) -> None:
    chunk = base64.b64encode(b"x" * 1048576).decode()
    response = await rest.post(f"/v1/uploads/{uuid4()}:append", json={"offsetBytes": "5", "chunk": chunk})
    assert response.json() == {"receivedBytes": "1048581"}


async def test_client_stream_is_a_list(rest: httpx.AsyncClient) -> None:
    file = {"requestId": str(uuid4()), "filename": "a.txt", "sizeBytes": 3, "sha256": "0" * 64}
    response = await rest.post("/v1/documents:upload", json=[{"file": file}, {"chunk": "AAAA"}])
    assert (response.json()["document"]["filename"], response.json()["document"]["sizeBytes"]) == ("a.txt", "3")


async def test_stream_is_a_line_per_message_as_it_is_made(edge: Edge, rest: httpx.AsyncClient) -> None:
    turn = {"requestId": str(uuid4()), "text": "one two"}
    edge.seen.next_word.set()
    async with rest.stream("POST", f"/v1/conversations/{CONVERSATION_ID}/turns", json=turn) as response:
        lines = response.aiter_lines()
        first = json.loads(await anext(lines))
        edge.seen.next_word.set()
        second = json.loads(await anext(lines))
    assert first == {"event": {"turnId": turn["requestId"], "sequence": "1", "textDelta": {"text": "one"}}}
    assert second["event"]["textDelta"]["text"] == "two"


async def test_only_a_reading_call_is_repeated_when_the_service_is_unavailable(
    edge: Edge, rest: httpx.AsyncClient
) -> None:
    calls = edge.seen.calls
    listing = await rest.get("/v1/conversations", params={"pageSize": UNAVAILABLE_PAGE_SIZE})
    assert rest_refusal(listing) == (503, "RECORD_UNAVAILABLE")
    assert edge.seen.calls == calls + 3
    turn = {"requestId": str(uuid4()), "text": "refuse"}
    await rest.post(f"/v1/conversations/{CONVERSATION_ID}/turns", json=turn)
    assert edge.seen.calls == calls + 4


async def test_stream_that_fails_before_its_first_message_is_a_refusal(rest: httpx.AsyncClient) -> None:
    turn = {"requestId": str(uuid4()), "text": "refuse"}
    response = await rest.post(f"/v1/conversations/{CONVERSATION_ID}/turns", json=turn)
    assert rest_refusal(response) == (503, "MODEL_UNAVAILABLE")


async def test_stream_that_fails_later_just_ends(edge: Edge, rest: httpx.AsyncClient) -> None:
    turn = {"requestId": str(uuid4()), "text": "one fail"}
    edge.seen.next_word.set()
    async with rest.stream("POST", f"/v1/conversations/{CONVERSATION_ID}/turns", json=turn) as response:
        lines = response.aiter_lines()
        await anext(lines)
        edge.seen.next_word.set()
        assert [line async for line in lines] == []  # the status is sent before the first line


async def test_watching_is_a_get(rest: httpx.AsyncClient) -> None:
    response = await rest.get("/v1/notifications:watch", params={"afterSequence": 7})
    assert json.loads(response.text)["notification"]["sequence"] == "8"


async def test_sign_in_and_keys_need_no_token(edge: Edge) -> None:
    async with httpx.AsyncClient(base_url=edge.url) as stranger:
        login = await stranger.post("/v1/auth:login", json={"email": "a@b", "password": "x"})
        keys = await stranger.get("/.well-known/jwks.json")
    assert login.json()["user"]["email"] == "a@b"
    assert keys.json()["keys"][0]["kid"] == "test"


async def test_path_is_normalised_before_anything_looks_at_it(edge: Edge, rest: httpx.AsyncClient) -> None:
    assert UUID((await rest.get("/v1//me")).json()["user"]["id"])
    for path in ("/v1%2fme", "/v1%2Fauth%3alogin/..%2f..%2fv1/me"):
        assert rest_refusal(await rest.get(path)) == MALFORMED
    # The jump from an open path to a closed one is seen as the closed one.
    async with httpx.AsyncClient(base_url=edge.url, headers={"connection": "close"}) as stranger:
        assert rest_refusal(await stranger.get("/.well-known/%2e%2e/v1/me")) == (401, "TOKEN_MISSING")


async def test_refusal_of_a_service_is_its_status_as_json(rest: httpx.AsyncClient) -> None:
    response = await rest.get(f"/v1/conversations/{UNKNOWN_ID}")
    assert rest_refusal(response) == (404, "CONVERSATION_NOT_FOUND")
    invalid = await rest.get("/v1/conversations/xx")
    assert rest_refusal(invalid) == (400, "INVALID_FIELD")
    assert invalid.json()["details"][1]["fieldViolations"][0]["field"] == "conversation_id"


@pytest.mark.parametrize(
    "body",
    [
        '{"requestId":',
        "[]",
        '"text"',
        "a=b",
        '{"title": {"a": 1}}',
        '{"title": 5}',
        '{"title": "\\ud800"}',
        b'{"title": "\xff\xfe"}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" + "0," * 1_000_000 + "0]",
    ],
)
async def test_body_that_is_not_the_message_is_refused(rest: httpx.AsyncClient, body: str | bytes) -> None:
    response = await rest.post("/v1/conversations", content=body)
    assert rest_refusal(response) == MALFORMED


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/conversations", {"requestId": CONVERSATION_ID, "nope": 1}),
        ("/v1/conversations", {"nope": [1, {"title": "}"}], "requestId": CONVERSATION_ID}),
        ("/v1/uploads", {"file": {"filename": "a", "nope": "x"}}),
        (f"/v1/conversations/{CONVERSATION_ID}/turns", {"text": 'a "quoted" \\', "options": {"nope": True}}),
        ("/v1/documents:upload", [{"chunk": "AAAA"}, {"nope": "AAAA"}]),
        ("/v1/auth:login?x=1", {"nope": ""}),
    ],
)
async def test_unknown_field_is_refused_by_name(rest: httpx.AsyncClient, path: str, body: object) -> None:
    response = await rest.post(path, json=body)
    assert rest_refusal(response) == MALFORMED
    assert '"nope"' in response.json()["message"]


async def test_known_fields_are_known_however_the_json_is_written(rest: httpx.AsyncClient) -> None:
    body = '\n{ "title" :\t"a \\"}, \\\\" , "requestId":"' + CONVERSATION_ID + '" }\r\n'
    response = await rest.post("/v1/conversations", content=body)
    assert response.json()["conversation"]["title"] == 'a "}, \\'
    options = {"maxOutputTokens": 5, "temperature": -1.5e-3, "search": None}
    turn = {"requestId": CONVERSATION_ID, "text": "", "options": options}
    response = await rest.post(f"/v1/conversations/{CONVERSATION_ID}/turns", json=turn)
    assert rest_refusal(response) == (400, "INVALID_FIELD")


@pytest.mark.parametrize("query", ["nope=3", "pageSize=abc", "pageSize=-1", "pageSize=99999999999"])
async def test_bad_query_is_refused(rest: httpx.AsyncClient, query: str) -> None:
    assert rest_refusal(await rest.get(f"/v1/conversations?{query}")) == MALFORMED


async def test_body_over_2_mib_is_refused(edge: Edge, rest: httpx.AsyncClient) -> None:
    calls = edge.seen.calls
    response = await rest.post("/v1/conversations", json=creation(title="x" * 2**21))
    assert rest_refusal(response)[0] == 413
    assert edge.seen.calls == calls


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1/nothing"),
        ("PUT", f"/v1/conversations/{CONVERSATION_ID}"),
        ("POST", "/parley.session.v1.SessionService/ListConversations"),
        ("POST", "/parley.session.v1.TurnRecordService/OpenTurn"),
        ("GET", "/"),
    ],
)
async def test_unknown_path_is_refused(rest: httpx.AsyncClient, verb: str, path: str) -> None:
    assert rest_refusal(await rest.request(verb, path)) == (404, "ROUTE_NOT_FOUND")


async def test_path_that_the_edge_takes_is_read_by_the_service(rest: httpx.AsyncClient) -> None:
    response = await rest.get("/v1/conversations", params={"pageToken": "x" * 28_000})
    assert rest_refusal(response) == (400, "INVALID_FIELD")
