"""What the notification service is told at its start."""

from dataclasses import dataclass
from pathlib import Path

from services.shared.serving.settings import ServingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServingSettings):
    """PARLEY_* variables of the notification service."""

    postgres_dsn: str
    postgres_password_file: Path | None = None
    nats_url: str
