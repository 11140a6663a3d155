"""The one place that names the stream, its subjects and its durable consumers."""

import re
from dataclasses import dataclass

STREAM = "PARLEY_EVENTS"
SUBJECTS = ("parley.events.>",)
MAX_AGE_S = 30 * 24 * 3600
DUPLICATE_WINDOW_S = 600  # how long JetStream itself drops a Nats-Msg-Id that comes again
MAX_DELIVERIES = 5


@dataclass(frozen=True)
class Durable:
    """A durable pull consumer: which events it gets, and how long it may work on one before it comes again."""

    name: str
    service: str
    event_types: tuple[str, ...]
    ack_wait_s: float = 30.0


DURABLES = (
    Durable("knowledge-indexing", "knowledge", ("parley.knowledge.v1.DocumentUploaded",), ack_wait_s=10.0),
    Durable("knowledge-removal", "knowledge", ("parley.knowledge.v1.DocumentDeleted",), ack_wait_s=10.0),
    Durable("knowledge-crawling", "knowledge", ("parley.knowledge.v1.CrawlRequested",), ack_wait_s=10.0),
    Durable(
        "knowledge-crawled",
        "knowledge",
        (
            "parley.knowledge.v1.DocumentIndexed",
            "parley.knowledge.v1.DocumentFailed",
            "parley.knowledge.v1.DocumentDeleted",
        ),
        ack_wait_s=10.0,
    ),
    Durable(
        "notification-feed",
        "notification",
        (
            "parley.knowledge.v1.DocumentIndexed",
            "parley.knowledge.v1.DocumentFailed",
            "parley.chat.v1.TurnCompleted",
        ),
    ),
)


def subject_of(event_type: str) -> str:
    """parley.session.v1.MessageAppended -> parley.events.session.message_appended.v1"""
    _, service, version, name = event_type.split(".")
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return f"parley.events.{service}.{snake}.{version}"
