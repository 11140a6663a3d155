"""Wiring of the notification service."""

from functools import partial
from pathlib import Path

from parley.notification.v1.notification_service_pb2_grpc import add_NotificationServiceServicer_to_server
from services.notification.follow import Follow
from services.notification.handlers import RULES, Intake, NotificationService
from services.notification.settings import Settings
from services.notification.store import StoredNotifications
from services.shared.events.bus import Bus
from services.shared.events.consumer import Consumer
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.serving.server import NATS_ADVICE, POSTGRES_ADVICE, Check, Service, run
from services.shared.serving.settings import read_settings
from services.shared.serving.tls import ssl_context


def wire() -> Service:
    settings = read_settings(Settings)
    database = Database(settings.postgres_dsn, settings.postgres_password_file, Path(__file__).parent)
    listener = Listener(database, "notification")
    bus = Bus(settings.nats_url, ssl_context(settings), "notification")
    notifications = StoredNotifications(database)
    intake = Intake(notifications)
    consumer = Consumer(bus, "notification-feed", intake.take, intake.give_up)
    handler = NotificationService(notifications, Follow(notifications, listener))
    return Service(
        name="notification",
        settings=settings,
        register=[partial(add_NotificationServiceServicer_to_server, handler)],
        proto_services=["parley.notification.v1.NotificationService"],
        rules=RULES,
        resources=[database, listener.running(), bus.running(), consumer.running()],
        checks=[
            Check("PostgreSQL", database.probe, POSTGRES_ADVICE),
            Check("NATS", bus.probe, NATS_ADVICE, needed=False),
        ],
    )


if __name__ == "__main__":
    run("notification", wire)
