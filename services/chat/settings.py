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
    # The longest the model may speak.
    turn_deadline_s: float = 300.0
    # How long a turn goes on without any reader.
    reader_grace_s: float = 0.0
