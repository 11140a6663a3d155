"""Wiring of the chat service."""

from functools import partial
from pathlib import Path
from uuid import uuid4

from grpc.aio import Channel

from parley.chat.v1.chat_service_pb2_grpc import add_ChatServiceServicer_to_server
from services.chat import metrics
from services.chat.answer import Means
from services.chat.handlers import ChatService
from services.chat.model import TritonModel
from services.chat.ownership import Ownership
from services.chat.pace import Pace
from services.chat.peers import IDEMPOTENT_AT_KNOWLEDGE, IDEMPOTENT_AT_SESSION, KnowledgePeer, SessionPeer
from services.chat.prompt import Prompts
from services.chat.settings import Settings
from services.chat.store import StoredTurns
from services.chat.turnlog import ValkeyTurnLog
from services.chat.turns import Rules, Turns
from services.chat.wire import encode
from services.shared.background import background
from services.shared.events.bus import Bus
from services.shared.events.relay import Relay
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.serving.channel import open_channel
from services.shared.serving.server import NATS_ADVICE, POSTGRES_ADVICE, Check, Service, run
from services.shared.serving.settings import read_settings
from services.shared.serving.tls import ssl_context


def wire() -> Service:
    settings = read_settings(Settings)
    database = Database(settings.postgres_dsn, settings.postgres_password_file, Path(__file__).parent)
    listener = Listener(database, "chat")
    bus = Bus(settings.nats_url, ssl_context(settings), "chat")
    relay = Relay(database, listener, bus)
    log = ValkeyTurnLog(settings.valkey_url, settings.valkey_password_file)
    model = TritonModel(settings.triton_address, settings)
    session = open_channel(settings.session_address, "session", settings, idempotent=IDEMPOTENT_AT_SESSION)
    knowledge = open_channel(settings.knowledge_address, "knowledge", settings, idempotent=IDEMPOTENT_AT_KNOWLEDGE)
    # The lease is never renewed behind what readers ask: they are many when a replica has just come back.
    lease_database = Database(
        settings.postgres_dsn, settings.postgres_password_file, Path(__file__).parent, max_connections=1
    )
    replica_id = uuid4()
    records = StoredTurns(database, replica_id)
    means = _means(settings, session, knowledge, model, records)
    rules = Rules(
        models=settings.chat_models,
        deadline_s=settings.turn_deadline_s,
        reader_grace_s=settings.reader_grace_s,
        open_turns=settings.open_turns_per_user,
        open_readers=settings.open_readers_per_user,
    )
    turns = Turns(records, log, listener, encode, means, rules)
    leases = StoredTurns(lease_database, replica_id)
    ownership = Ownership(leases, listener, turns, lease_s=settings.lease_s, beat_s=settings.beat_s)
    metrics.show_open_turns(lambda: turns.open_count)
    return Service(
        name="chat",
        settings=settings,
        register=[partial(add_ChatServiceServicer_to_server, ChatService(turns, records))],
        proto_services=["parley.chat.v1.ChatService"],
        resources=[
            *(database, lease_database, listener.running(), bus.running(), relay.running()),
            *(session, knowledge, model, log, background(ownership.run)),
        ],
        drain=ownership.drain,
        # Whatever else is away, a turn does without it or says so, which is more than an unready service says.
        checks=[
            Check("PostgreSQL", database.probe, POSTGRES_ADVICE),
            Check("NATS", bus.probe, NATS_ADVICE, needed=False),
            Check("Valkey", log.probe, "Start Valkey and check PARLEY_VALKEY_URL and its password file.", needed=False),
            Check("Triton", model.probe, "Start Triton and check PARLEY_TRITON_ADDRESS.", needed=False),
            Check("session", session.channel_ready, "Start session and check PARLEY_SESSION_ADDRESS.", needed=False),
            Check("knowledge", knowledge.channel_ready, "Start it and check PARLEY_KNOWLEDGE_ADDRESS.", needed=False),
        ],
    )


def _means(settings: Settings, session: Channel, knowledge: Channel, model: TritonModel, records: StoredTurns) -> Means:
    return Means(
        conversations=SessionPeer(session, settings.history_messages),
        documents=KnowledgePeer(knowledge, passages=settings.passages, timeout_s=settings.search_timeout_s),
        model=model,
        ends=records,
        meter=metrics.PrometheusTurnMeter(),
        prompts=Prompts(settings.context_tokens),
        pace=Pace(settings.events_per_s, settings.longest_interval_s),
        patience_s=settings.patience_s,
    )


if __name__ == "__main__":
    run("chat", wire)
