"""What chat is told at start: PARLEY_* variables, see services/shared/serving/settings.py."""

from dataclasses import dataclass
from pathlib import Path

from services.shared.serving.settings import ServingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServingSettings):
    """Addresses are gRPC targets, a host:port, or URLs. The certificate is shown to NATS, peers and Triton too."""

    postgres_dsn: str
    postgres_password_file: Path | None = None
    nats_url: str
    session_address: str
    knowledge_address: str
    triton_address: str
    valkey_url: str
    valkey_password_file: Path | None = None
    # Triton's names of the models that may be asked for; the first one is the default.
    chat_models: tuple[str, ...]
    # What the smallest of these models takes, question and answer together.
    context_tokens: int = 2048
    # How many earlier messages are asked for; those that fit are used.
    history_messages: int = 20
    # How many passages stand before the model at most, 1 to 20.
    passages: int = 4
    # After this long a search is given up and the answer comes without sources.
    search_timeout_s: float = 2.0
    # The longest a turn may take, waiting for the model and its words together.
    turn_deadline_s: float = 600.0
    # How long a turn goes on without any reader, unless its question says.
    reader_grace_s: float = 60.0
    # How long the end of a turn waits for session or the record to come back.
    patience_s: float = 30.0
    # How many running turns a user may have, over all replicas.
    open_turns_per_user: int = 20
    # How many streams a user may have open at one replica.
    open_readers_per_user: int = 50
    # How many events of words this replica passes on before turns gather their words.
    events_per_s: float = 800.0
    # The longest that words are gathered.
    longest_interval_s: float = 0.12
    # For how long the other replicas believe that this one is alive.
    lease_s: float = 1.2
    # How often the lease is renewed and orphaned turns are looked for.
    beat_s: float = 0.3
