"""A restart of every service, one replica after the other, under load: no call fails, no stream is lost."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import grpc
import pytest

from parley.auth.v1.user_service_pb2 import GetMeRequest
from parley.auth.v1.user_service_pb2_grpc import UserServiceStub
from parley.chat.v1.chat_service_pb2 import GetTurnRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.knowledge.v1.knowledge_service_pb2 import ListDocumentsRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from parley.notification.v1.notification_service_pb2 import ListNotificationsRequest, WatchNotificationsRequest
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from parley.session.v1.session_service_pb2 import CreateConversationRequest, ListConversationsRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from tests.mesh.following import Follower
from tests.mesh.running import RunningMesh, User, register
from tests.mesh.test_handover import answer
from tests.mesh.test_turns import events_of, new_conversation, question
from tests.refusals import reason_of

CALLS_PER_S = 50
USERS = 5
TURNS_PER_USER, FEEDS_PER_USER = 10, 10
"""A hundred open streams."""
TOKENS, TOKENS_PER_S = 600, 2
TURN = f"tokens={TOKENS} tokens_per_s={TOKENS_PER_S}"
"""Longer than all restarts together."""
COMING_BACK_S = 0.2
LONGEST_CALL_S = 5
"""On a machine that starts processes of its own all the while."""


class Feed:
    """A user's notifications, read over as many calls as it takes, for ever."""

    def __init__(self, edge: grpc.aio.Channel, user: User) -> None:
        self._notifications, self._user = NotificationServiceStub(edge), user
        self.numbers: list[int] = []
        self.breaks: Counter[tuple[grpc.StatusCode, str]] = Counter()

    async def follow(self) -> None:
        while True:
            request = WatchNotificationsRequest(after_sequence=self.numbers[-1] if self.numbers else 0)
            try:
                async for response in self._notifications.WatchNotifications(request, **as_(self._user)):
                    self.numbers.append(response.notification.sequence)
            except grpc.aio.AioRpcError as error:
                self.breaks[error.code(), reason_of(error) or error.details() or ""] += 1
                await asyncio.sleep(COMING_BACK_S)


class Calls:
    """Unary calls of every service in turn at a steady rate; how they ended, and how long the longest took."""

    def __init__(self, edge: grpc.aio.Channel, turns: Mapping[User, str]) -> None:
        """With a turn of each user."""
        self._users = list(turns)
        sessions = SessionServiceStub(edge)
        self._kinds: list[Callable[[User], Awaitable[object]]] = [
            lambda user: UserServiceStub(edge).GetMe(GetMeRequest(), **as_(user)),
            lambda user: sessions.CreateConversation(CreateConversationRequest(request_id=str(uuid4())), **as_(user)),
            lambda user: sessions.ListConversations(ListConversationsRequest(), **as_(user)),
            lambda user: ChatServiceStub(edge).GetTurn(GetTurnRequest(turn_id=turns[user]), **as_(user)),
            lambda user: KnowledgeServiceStub(edge).ListDocuments(ListDocumentsRequest(), **as_(user)),
            lambda user: NotificationServiceStub(edge).ListNotifications(ListNotificationsRequest(), **as_(user)),
        ]
        self.ends: Counter[str] = Counter()
        self.longest_s = 0.0

    async def go_on(self) -> None:
        async with asyncio.TaskGroup() as calls:
            for number in range(1_000_000):
                # Each user comes to each kind of call.
                kind = self._kinds[number % len(self._kinds)]
                calls.create_task(self._call(kind, self._users[number // len(self._kinds) % len(self._users)]))
                await asyncio.sleep(1 / CALLS_PER_S)

    async def _call(self, kind: Callable[[User], Awaitable[object]], user: User) -> None:
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            await kind(user)
            self.ends["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.ends[f"{error.code().name} {reason_of(error)} {error.details()}"] += 1
        self.longest_s = max(self.longest_s, clock() - began_s)


def as_(user: User) -> dict[str, Any]:
    return {"metadata": user.metadata}


async def short_turn(edge: grpc.aio.Channel, user: User) -> str:
    """The id of a turn that has ended."""
    return (await events_of(edge, user, question(await new_conversation(edge, user), "hello")))[0].turn_id


async def restarted(mesh: RunningMesh, *arguments: str) -> None:
    ran = await asyncio.to_thread(mesh.parley, "restart", *arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def all_go_on(streams: Sequence[Follower | Feed]) -> None:
    """Each brings something more."""
    before = [len(stream.numbers) for stream in streams]
    await until(lambda: all(len(stream.numbers) > n for stream, n in zip(streams, before, strict=True)))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_no_call_fails_and_no_stream_is_lost_while_every_service_restarts(pair: RunningMesh) -> None:
    target, apart = pair.http.removeprefix("http://"), [("grpc.use_local_subchannel_pool", 1)]
    # Apart, because one connection takes no more than a hundred streams at once.
    async with grpc.aio.insecure_channel(target, apart) as edge, grpc.aio.insecure_channel(target, apart) as other:
        users = [await register(other) for _ in range(USERS)]
        calls = Calls(other, {user: await short_turn(other, user) for user in users})
        asked = [(user, question(await new_conversation(other, user), TURN)) for user in users * TURNS_PER_USER]
        turns = [Follower(edge, user, request) for user, request in asked]
        feeds = [Feed(edge, user) for user in users * FEEDS_PER_USER]
        work = [asyncio.create_task(stream.follow()) for stream in (*turns, *feeds)]
        work += [asyncio.create_task(calls.go_on())]
        try:
            async with asyncio.timeout(30):
                await until(lambda: all(stream.numbers for stream in (*turns, *feeds)))
            await restarted(pair, "--all")
            async with asyncio.timeout(30):
                # Every turn goes on, and every feed tells of what ends now.
                await all_go_on(turns)
                feeding = asyncio.create_task(all_go_on(feeds))
                for user in users:
                    await short_turn(other, user)
                await feeding
            assert not [task for task in work if task.done()]
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)
    breaks = sum((stream.breaks for stream in (*turns, *feeds)), Counter())
    gaps = sorted(turn.longest_gap_s - 1 / TOKENS_PER_S for turn in turns)
    print(f"{calls.ends}, longest {calls.longest_s:.2f} s; {breaks}; longest gap in a turn {gaps[-1]:.2f} s too long")
    assert calls.ends.keys() == {"OK"}, calls.ends
    assert calls.ends["OK"] > 10 * CALLS_PER_S
    assert calls.longest_s < LONGEST_CALL_S
    assert breaks.keys() == {(grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")}, breaks
    for turn in turns:
        assert turn.numbers == list(range(1, len(turn.numbers) + 1))
        assert answer(TOKENS).startswith(turn.words.strip())
    for feed in feeds:
        assert feed.numbers == sorted(set(feed.numbers))
