"""A restart of every service, one replica after the other, under load: no call fails, no stream is lost.

Its own mesh, with two replicas of each service.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import grpc
import pytest

from parley.auth.v1.user_service_pb2 import GetMeRequest
from parley.auth.v1.user_service_pb2_grpc import UserServiceStub
from parley.chat.v1.chat_service_pb2 import GetTurnRequest, ResumeTurnRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.knowledge.v1.knowledge_service_pb2 import ListDocumentsRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from parley.notification.v1.notification_service_pb2 import ListNotificationsRequest, WatchNotificationsRequest
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from parley.session.v1.session_service_pb2 import CreateConversationRequest, ListConversationsRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from stack.mesh import SERVICES
from tests.mesh.running import RunningMesh, User, parley, register
from tests.mesh.test_turns import events_of, new_conversation, question
from tests.refusals import reason_of

CALLS_PER_S = 50
USERS = 5
TURNS_PER_USER, FEEDS_PER_USER = 10, 10
"""A hundred open streams."""
TURN = "tokens=600 tokens_per_s=2"
"""Longer than all restarts together."""
COMING_BACK_S = 0.2
LONGEST_CALL_S = 5
"""On a machine that starts processes of its own all the while."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh in which each service has two replicas."""
    data_dir = tmp_path_factory.mktemp("pair")
    replicas = ",".join(f"{service}=2" for service in SERVICES)
    options = ("--port=0", "--tls-port=0", "--chat-models=echo", f"--replicas={replicas}")
    # Turns that last longer are handed over; nobody needs to wait ten seconds for that here.
    started = parley("up", "--detach", f"--data-dir={data_dir}", *options, PARLEY_STOP_GRACE_S="3")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield RunningMesh(data_dir)
    finally:
        parley("down", f"--data-dir={data_dir}")


class Streams:
    """Streams that come back when they break. What came, and how they broke: by status and reason."""

    def __init__(self, edge: grpc.aio.Channel) -> None:
        self._edge = edge
        self.breaks: Counter[tuple[grpc.StatusCode, str]] = Counter()
        self.turns: list[list[int]] = []
        """The numbers of the events that each stream brought."""
        self.feeds: list[list[int]] = []

    async def turn(self, user: User) -> None:
        """Follow a turn over as many calls as it takes, for ever."""
        chat = ChatServiceStub(self._edge)
        request = question(await new_conversation(self._edge, user), TURN)
        turn_id, seen = "", list[int]()
        self.turns.append(seen)
        while True:
            if seen:
                call = chat.ResumeTurn(ResumeTurnRequest(turn_id=turn_id, after_sequence=seen[-1]), **as_(user))
            else:
                call = chat.StartTurn(request, **as_(user))
            async for event in self._unbroken(call):
                turn_id = event.turn_id
                seen.append(event.sequence)

    async def feed(self, user: User) -> None:
        """Follow a user's feed likewise."""
        notifications, seen = NotificationServiceStub(self._edge), list[int]()
        self.feeds.append(seen)
        while True:
            request = WatchNotificationsRequest(after_sequence=seen[-1] if seen else 0)
            async for notification in self._unbroken(notifications.WatchNotifications(request, **as_(user))):
                seen.append(notification.sequence)

    async def _unbroken(self, call: Any) -> AsyncIterator[Any]:
        try:
            async for response in call:
                yield response.event if hasattr(response, "event") else response.notification
        except grpc.aio.AioRpcError as error:
            self.breaks[error.code(), reason_of(error) or error.details()] += 1
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


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_no_call_fails_and_no_stream_is_lost_while_every_service_restarts(pair: RunningMesh) -> None:
    target, apart = pair.http.removeprefix("http://"), [("grpc.use_local_subchannel_pool", 1)]
    # Apart, because one connection takes no more than a hundred streams at once.
    async with grpc.aio.insecure_channel(target, apart) as edge, grpc.aio.insecure_channel(target, apart) as other:
        users = [await register(other) for _ in range(USERS)]
        streams, calls = Streams(edge), Calls(other, {user: await short_turn(other, user) for user in users})
        work = [asyncio.create_task(streams.turn(user)) for user in users for _ in range(TURNS_PER_USER)]
        work += [asyncio.create_task(streams.feed(user)) for user in users for _ in range(FEEDS_PER_USER)]
        work += [asyncio.create_task(calls.go_on())]
        try:
            async with asyncio.timeout(30):
                await until(lambda: all(streams.turns) and len(streams.turns) == USERS * TURNS_PER_USER)
                await until(lambda: len(streams.feeds) == USERS * FEEDS_PER_USER)
            await restarted(pair, "--all")
            async with asyncio.timeout(30):
                # Every turn goes on, and every feed tells of what ends now.
                before = [len(seen) for seen in streams.turns]
                await until(lambda: all(len(seen) > n for seen, n in zip(streams.turns, before, strict=True)))
                ended = [len(seen) for seen in streams.feeds]
                for user in users:
                    await short_turn(other, user)
                await until(lambda: all(len(seen) > n for seen, n in zip(streams.feeds, ended, strict=True)))
            assert not [task for task in work if task.done()]
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)
    assert calls.ends.keys() == {"OK"}, calls.ends
    assert calls.ends["OK"] > 20 * CALLS_PER_S
    assert calls.longest_s < LONGEST_CALL_S
    assert streams.breaks.keys() == {(grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")}, streams.breaks
    for seen in streams.turns:
        assert seen == list(range(1, len(seen) + 1))
    for seen in streams.feeds:
        assert seen == sorted(set(seen))
