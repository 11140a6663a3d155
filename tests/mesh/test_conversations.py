"""Conversations over REST: made, listed, renamed, deleted; nobody else's."""

from typing import Any
from uuid import uuid4

import httpx
import pytest


async def create(rest: httpx.AsyncClient, user: Any, title: str = "") -> dict[str, Any]:
    body = {"requestId": str(uuid4()), "title": title}
    response = await rest.post("/v1/conversations", json=body, headers=user.headers)
    assert response.status_code == 200, response.text
    return dict(response.json()["conversation"])


def reason_in(response: httpx.Response) -> str:
    body = response.json()
    return str(next(detail["reason"] for detail in body["details"] if detail["@type"].endswith("ErrorInfo")))


async def test_conversations_are_listed_last_changed_first_in_pages(rest: httpx.AsyncClient, user: Any) -> None:
    made = [await create(rest, user, f"number {number}") for number in range(5)]
    titles: list[str] = []
    token = ""
    while True:
        query = {"pageSize": 2, "pageToken": token} if token else {"pageSize": 2}
        page = (await rest.get("/v1/conversations", params=query, headers=user.headers)).json()
        titles += [conversation["title"] for conversation in page["conversations"]]
        if not (token := page.get("nextPageToken", "")):
            break
    assert titles == [conversation["title"] for conversation in reversed(made)]


async def test_a_conversation_is_renamed(rest: httpx.AsyncClient, user: Any) -> None:
    made = await create(rest, user, "old")
    path = f"/v1/conversations/{made['id']}"
    renamed = await rest.patch(path, json={"title": "new"}, headers=user.headers)
    assert renamed.status_code == 200, renamed.text
    assert renamed.json()["conversation"]["title"] == "new"
    assert (await rest.get(path, headers=user.headers)).json()["conversation"]["title"] == "new"


async def test_a_deleted_conversation_is_gone(rest: httpx.AsyncClient, user: Any) -> None:
    path = f"/v1/conversations/{(await create(rest, user))['id']}"
    assert (await rest.delete(path, headers=user.headers)).status_code == 200
    gone = await rest.get(path, headers=user.headers)
    assert (gone.status_code, reason_in(gone)) == (404, "CONVERSATION_NOT_FOUND")
    again = await rest.delete(path, headers=user.headers)
    assert (again.status_code, reason_in(again)) == (404, "CONVERSATION_NOT_FOUND")


@pytest.mark.parametrize("verb", ["get", "delete", "patch", "messages", "turn"])
async def test_a_strangers_conversation_is_not_found(
    rest: httpx.AsyncClient, user: Any, stranger: Any, verb: str
) -> None:
    path = f"/v1/conversations/{(await create(rest, user, 'mine'))['id']}"
    calls = {
        "get": lambda: rest.get(path, headers=stranger.headers),
        "delete": lambda: rest.delete(path, headers=stranger.headers),
        "patch": lambda: rest.patch(path, json={"title": "x"}, headers=stranger.headers),
        "messages": lambda: rest.get(f"{path}/messages", headers=stranger.headers),
        "turn": lambda: rest.post(
            f"{path}/turns", json={"requestId": str(uuid4()), "text": "hello"}, headers=stranger.headers
        ),
    }
    refused = await calls[verb]()
    assert (refused.status_code, reason_in(refused)) == (404, "CONVERSATION_NOT_FOUND"), refused.text
    kept = await rest.get(path, headers=user.headers)
    assert kept.json()["conversation"]["title"] == "mine"


async def test_a_repeated_creation_makes_one_conversation(rest: httpx.AsyncClient, user: Any) -> None:
    body = {"requestId": str(uuid4()), "title": "once"}
    first, second = [await rest.post("/v1/conversations", json=body, headers=user.headers) for _ in range(2)]
    assert first.json() == second.json()
    other = await rest.post("/v1/conversations", json={**body, "title": "twice"}, headers=user.headers)
    assert (other.status_code, reason_in(other)) == (409, "REQUEST_ID_REUSED")
