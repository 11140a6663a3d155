"""The RPCs, over a real server with the generated client."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import grpc
import pytest

from parley.errors.v1.error_reason_pb2 import ERROR_REASON_DOCUMENT_CORRUPT
from parley.notification.v1.notification_pb2 import AnswerReady, DocumentReady, DocumentRefused, Notification
from parley.notification.v1.notification_service_pb2 import ListNotificationsRequest, WatchNotificationsRequest
from parley.notification.v1.notification_service_pb2_grpc import (
    NotificationServiceStub,
    add_NotificationServiceServicer_to_server,
)
from services.notification import notification as domain
from services.notification.follow import Follow
from services.notification.handlers import NotificationService
from services.notification.notification import Owner
from services.shared.errors import Reason
from services.shared.pages import page_token
from tests.conftest import ServeLocally, Signer
from tests.notification.conftest import NOON, an_owner, fill
from tests.notification.fakes import FakeNotifications, FakeWakeUps
from tests.refusals import refusal_of

Watch = grpc.aio.UnaryStreamCall


@dataclass
class Served:
    """The service on fakes, and a client of one user."""

    stub: NotificationServiceStub
    notifications: FakeNotifications
    wake_ups: FakeWakeUps
    signer: Signer
    owner: Owner

    async def list(self, page_size: int = 0, page_token: str = "", owner: Owner | None = None):
        request = ListNotificationsRequest(page_size=page_size, page_token=page_token)
        return await self.stub.ListNotifications(request, metadata=self._metadata(owner), timeout=5)

    def watch(self, after_sequence: int = 0, **claims: object) -> Watch:
        request = WatchNotificationsRequest(after_sequence=after_sequence)
        return self.stub.WatchNotifications(request, metadata=self._metadata(None, **claims), timeout=20)

    def _metadata(self, owner: Owner | None, **claims: object) -> tuple[tuple[str, str], ...]:
        owner = owner or self.owner
        return self.signer.metadata(tenant=owner.tenant_id, user=owner.user_id, **claims)


@pytest.fixture
async def served(
    serve_locally: ServeLocally, signer: Signer, fake_feeds: tuple[FakeNotifications, FakeWakeUps]
) -> AsyncIterator[Served]:
    notifications, wake_ups = fake_feeds
    handler = NotificationService(notifications, Follow(notifications, wake_ups))
    async with serve_locally(partial(add_NotificationServiceServicer_to_server, handler)) as channel:
        yield Served(NotificationServiceStub(channel), notifications, wake_ups, signer, an_owner())


async def _sequences(watch: Watch, count: int) -> list[int]:
    return [(await watch.read()).notification.sequence for _ in range(count)]


async def test_the_newest_come_first(served: Served) -> None:
    await fill(served.notifications, served.owner, "a", "b", "c")
    answer = await served.list()
    assert [entry.document_ready.filename for entry in answer.notifications] == ["c", "b", "a"]
    assert answer.next_page_token == ""


async def test_pages_join_without_gap_or_repeat_while_new_entries_come(served: Served) -> None:
    await fill(served.notifications, served.owner, *map(str, range(1, 8)))
    seen, token = [], ""
    while True:
        answer = await served.list(page_size=3, page_token=token)
        seen += [entry.sequence for entry in answer.notifications]
        await fill(served.notifications, served.owner, "meanwhile")
        if not (token := answer.next_page_token):
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_a_page_is_fifty_by_default_and_the_last_one_says_so(served: Served) -> None:
    await fill(served.notifications, served.owner, *map(str, range(50)))
    assert (await served.list()).next_page_token == ""
    await fill(served.notifications, served.owner, "one more")
    answer = await served.list()
    assert (len(answer.notifications), bool(answer.next_page_token)) == (50, True)


async def test_an_empty_feed_is_an_empty_page(served: Served) -> None:
    answer = await served.list()
    assert (list(answer.notifications), answer.next_page_token) == ([], "")


async def test_nobody_sees_the_feed_of_another_user_or_tenant(served: Served) -> None:
    await fill(served.notifications, served.owner, "mine")
    for other in (Owner(served.owner.tenant_id, uuid4()), Owner(uuid4(), served.owner.user_id)):
        assert list((await served.list(owner=other)).notifications) == []


async def test_every_kind_of_entry_is_shown_whole(served: Served) -> None:
    one, two, three = (UUID(int=number) for number in (1, 2, 3))
    subjects = [
        domain.DocumentReady(one, "a.pdf", 7),
        domain.DocumentRefused(one, "b.pdf", ERROR_REASON_DOCUMENT_CORRUPT, "It can't be read."),
        domain.AnswerReady(one, two, three),
    ]
    for subject in subjects:
        await served.notifications.add(uuid4(), served.owner, subject, NOON)
    answer, refused, found = (await served.list()).notifications
    assert found.document_ready == DocumentReady(document_id=str(one), filename="a.pdf", passages=7)
    assert refused.document_refused == DocumentRefused(
        document_id=str(one), filename="b.pdf", reason=ERROR_REASON_DOCUMENT_CORRUPT, message="It can't be read."
    )
    assert answer.answer_ready == AnswerReady(conversation_id=str(one), turn_id=str(two), message_id=str(three))
    assert found.create_time.ToDatetime(NOON.tzinfo) == NOON
    assert UUID(found.id)


@pytest.mark.parametrize(
    "token", ["x", "%%%", page_token("0"), page_token(2**63), page_token("-1"), page_token("²"), page_token(1, 2)]
)
async def test_a_page_token_of_another_make_is_refused(served: Served, token: str) -> None:
    assert (await refusal_of(served.list(page_token=token))).reason is Reason.PAGE_TOKEN_INVALID


async def test_a_page_over_the_limit_is_refused(served: Served) -> None:
    assert (await refusal_of(served.list(page_size=101))).reason is Reason.INVALID_FIELD


async def test_a_place_beyond_any_feed_is_refused(served: Served) -> None:
    assert (await refusal_of(served.watch(2**63).read())).reason is Reason.INVALID_FIELD


async def test_a_watch_without_a_token_is_refused(served: Served) -> None:
    call = served.stub.WatchNotifications(WatchNotificationsRequest(), timeout=5)
    assert (await refusal_of(call.read())).reason is Reason.TOKEN_MISSING


async def test_a_watch_gives_what_is_stored_and_then_what_comes(served: Served) -> None:
    await fill(served.notifications, served.owner, "a", "b", "c")
    watch = served.watch(after_sequence=1)
    assert await _sequences(watch, 2) == [2, 3]
    await fill(served.notifications, served.owner, "d")
    entry: Notification = (await watch.read()).notification
    assert (entry.sequence, entry.document_ready.filename) == (4, "d")
    watch.cancel()


async def test_a_watcher_that_comes_back_goes_on_where_it_was(served: Served) -> None:
    await fill(served.notifications, served.owner, "a", "b")
    first = served.watch()
    seen = await _sequences(first, 1)
    first.cancel()
    await fill(served.notifications, served.owner, "c")
    second = served.watch(after_sequence=seen[-1])
    assert await _sequences(second, 2) == [2, 3]
    second.cancel()


async def test_a_watch_ends_with_the_access_token(served: Served) -> None:
    await fill(served.notifications, served.owner, "a")
    watch = served.watch(exp=time.time() + 0.3)
    assert await _sequences(watch, 1) == [1]
    assert (await refusal_of(watch.read())).reason is Reason.TOKEN_EXPIRED
    assert served.wake_ups.deserted.is_set()


async def test_a_cancelled_watch_is_forgotten(served: Served) -> None:
    await fill(served.notifications, served.owner, "a")
    watch = served.watch()
    await _sequences(watch, 1)
    assert not served.wake_ups.deserted.is_set()
    watch.cancel()
    async with asyncio.timeout(5):
        await served.wake_ups.deserted.wait()
