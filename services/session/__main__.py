"""Wiring of the session service."""

from functools import partial
from pathlib import Path

from parley.session.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from parley.session.v1.turn_record_service_pb2_grpc import add_TurnRecordServiceServicer_to_server
from services.session.handlers import RULES, SessionService, TurnRecordService
from services.session.settings import Settings
from services.session.store import StoredConversations, StoredMessages, StoredTurns
from services.shared.events.bus import Bus
from services.shared.events.relay import Relay
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.serving.server import NATS_ADVICE, POSTGRES_ADVICE, Check, Service, run
from services.shared.serving.settings import read_settings
from services.shared.serving.tls import ssl_context


def wire() -> Service:
    settings = read_settings(Settings)
    database = Database(settings.postgres_dsn, settings.postgres_password_file, Path(__file__).parent)
    listener = Listener(database, "session")
    bus = Bus(settings.nats_url, ssl_context(settings), "session")
    relay = Relay(database, listener, bus)
    sessions = SessionService(StoredConversations(database), StoredMessages(database))
    turns = TurnRecordService(StoredTurns(database))
    return Service(
        name="session",
        settings=settings,
        register=[
            partial(add_SessionServiceServicer_to_server, sessions),
            partial(add_TurnRecordServiceServicer_to_server, turns),
        ],
        proto_services=["parley.session.v1.SessionService", "parley.session.v1.TurnRecordService"],
        rules=RULES,
        resources=[database, listener.running(), bus.running(), relay.running()],
        checks=[
            Check("PostgreSQL", database.probe, POSTGRES_ADVICE),
            Check("NATS", bus.probe, NATS_ADVICE, needed=False),
        ],
    )


if __name__ == "__main__":
    run("session", wire)
