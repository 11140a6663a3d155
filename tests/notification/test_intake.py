"""What becomes of the events of other services."""

import logging
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import DecodeError

from parley.chat.v1.chat_events_pb2 import TurnCompleted
from parley.errors.v1.error_reason_pb2 import ERROR_REASON_DOCUMENT_CORRUPT
from parley.knowledge.v1.knowledge_events_pb2 import DocumentFailed, DocumentIndexed
from services.notification.handlers import Intake
from services.notification.notification import AnswerReady, DocumentReady, DocumentRefused, Owner, Subject
from services.shared.events.consumer import Event
from services.shared.events.streams import DURABLES
from tests.notification.conftest import NOON, an_owner
from tests.notification.fakes import FakeNotifications, FakeWakeUps

Fakes = tuple[FakeNotifications, FakeWakeUps]
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))
USER = uuid4()
SHOWN = {
    "parley.knowledge.v1.DocumentIndexed": (
        DocumentIndexed(user_id=str(USER), document_id=str(ONE), filename="a.pdf", passages=7),
        DocumentReady(ONE, "a.pdf", 7),
    ),
    "parley.knowledge.v1.DocumentFailed": (
        DocumentFailed(
            user_id=str(USER),
            document_id=str(ONE),
            filename="a.pdf",
            reason=ERROR_REASON_DOCUMENT_CORRUPT,
            message="It can't be read.",
        ),
        DocumentRefused(ONE, "a.pdf", ERROR_REASON_DOCUMENT_CORRUPT, "It can't be read."),
    ),
    "parley.chat.v1.TurnCompleted": (
        TurnCompleted(user_id=str(USER), conversation_id=str(ONE), turn_id=str(TWO), message_id=str(THREE)),
        AnswerReady(ONE, TWO, THREE),
    ),
}


def _event(kind: str, payload: bytes, owner: Owner) -> Event:
    return Event(id=uuid4(), type=kind, tenant_id=owner.tenant_id, time=NOON, payload=payload)


@pytest.mark.parametrize("kind", SHOWN)
async def test_an_event_becomes_an_entry_of_its_user(fake_feeds: Fakes, kind: str) -> None:
    notifications, _ = fake_feeds
    message, subject = SHOWN[kind]
    owner = Owner(uuid4(), USER)
    event = _event(kind, message.SerializeToString(), owner)
    await Intake(notifications).take(event)
    await Intake(notifications).take(event)
    (entry,) = await notifications.after(owner, 0, 10)
    seen: tuple[Subject, object] = (entry.subject, entry.create_time)
    assert seen == (subject, NOON)


PAGE = {"user_id": str(USER), "document_id": str(ONE), "filename": "Home", "source_url": "https://example.com/"}


def test_every_event_of_the_durable_is_shown() -> None:
    (durable,) = (durable for durable in DURABLES if durable.service == "notification")
    assert set(durable.event_types) == set(SHOWN)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("parley.campaigns.v1.CampaignStarted", b"\xff"),
        ("parley.chat.v1.TurnCompleted", TurnCompleted(user_id=str(USER), turn_id=str(TWO)).SerializeToString()),
        ("parley.knowledge.v1.DocumentIndexed", DocumentIndexed(**PAGE).SerializeToString()),
        ("parley.knowledge.v1.DocumentFailed", DocumentFailed(**PAGE).SerializeToString()),
    ],
    ids=["unknown type", "answer without words", "page of a site", "page that can't be read"],
)
async def test_an_event_that_says_nothing_to_users_is_passed_over_and_logged(
    fake_feeds: Fakes, caplog: pytest.LogCaptureFixture, kind: str, payload: bytes
) -> None:
    notifications, _ = fake_feeds
    owner = Owner(uuid4(), USER)
    event = _event(kind, payload, owner)
    with caplog.at_level(logging.INFO):
        await Intake(notifications).take(event)
    (record,) = caplog.records
    assert record.facts["event_type"] == kind
    assert not await notifications.after(owner, 0, 10)


@pytest.mark.parametrize("payload", [b"\xff\xff", DocumentIndexed(user_id="nobody").SerializeToString()])
async def test_a_payload_that_is_no_such_event_is_not_taken(fake_feeds: Fakes, payload: bytes) -> None:
    notifications, _ = fake_feeds
    event = _event("parley.knowledge.v1.DocumentIndexed", payload, an_owner())
    with pytest.raises((DecodeError, ValueError)):
        await Intake(notifications).take(event)


async def test_giving_up_says_which_event(fake_feeds: Fakes, caplog: pytest.LogCaptureFixture) -> None:
    notifications, _ = fake_feeds
    event = _event("parley.knowledge.v1.DocumentIndexed", b"", an_owner())
    await Intake(notifications).give_up(event)
    (record,) = caplog.records
    assert record.facts["event_id"] == event.id
