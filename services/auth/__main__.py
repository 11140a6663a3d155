"""Wiring of the auth service."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from parley.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from parley.auth.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from services.auth.administrator import FirstAdministrator
from services.auth.handlers import RULES, AuthService, UserService
from services.auth.passwords import Argon2Passwords
from services.auth.session import Lifetimes, Sessions
from services.auth.settings import Settings
from services.auth.sign_in import SignIn
from services.auth.signing import PublishedKeys, SigningKey
from services.auth.store import StoredAccounts, StoredSessions
from services.shared.events.bus import Bus
from services.shared.events.relay import Relay
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.serving.server import NATS_ADVICE, POSTGRES_ADVICE, Check, Service, run
from services.shared.serving.settings import read_settings
from services.shared.serving.tls import ssl_context

SIGNING_KEY_ADVICE = "Put the public half of PARLEY_SIGNING_KEY_FILE into PARLEY_JWKS_FILE; `parley up` does it."


def wire() -> Service:
    settings = read_settings(Settings)
    clock = partial(datetime.now, UTC)
    database = Database(settings.postgres_dsn, settings.postgres_password_file, Path(__file__).parent)
    listener = Listener(database, "auth")
    bus = Bus(settings.nats_url, ssl_context(settings), "auth")
    relay = Relay(database, listener, bus)
    signing_key, keys = SigningKey.read(settings.signing_key_file), PublishedKeys(settings.jwks_file)
    passwords = Argon2Passwords(workers=settings.password_workers, queue=settings.password_queue)
    accounts = StoredAccounts(database)
    lifetimes = Lifetimes(settings.access_lifetime_s, settings.refresh_lifetime_s)
    sessions = Sessions(StoredSessions(database), signing_key, lifetimes, clock)
    sign_in = SignIn(accounts, passwords, sessions, clock)
    administrator = FirstAdministrator(accounts, passwords, settings.admin_password_file, clock)
    return Service(
        name="auth",
        settings=settings,
        register=[
            partial(add_AuthServiceServicer_to_server, AuthService(sign_in, sessions, keys.all)),
            partial(add_UserServiceServicer_to_server, UserService(accounts)),
        ],
        proto_services=["parley.auth.v1.AuthService", "parley.auth.v1.UserService"],
        rules=RULES,
        resources=[
            *(database, listener.running(), bus.running(), relay.running()),
            *(passwords, administrator.ensured()),
        ],
        checks=[
            Check("PostgreSQL", database.probe, POSTGRES_ADVICE),
            Check("NATS", bus.probe, NATS_ADVICE, needed=False),
            Check("signing key", partial(keys.probe_for, signing_key), SIGNING_KEY_ADVICE),
        ],
    )


if __name__ == "__main__":
    run("auth", wire)
