"""What notification is told at start: PARLEY_* variables, see services/shared/serving/settings.py."""

from dataclasses import dataclass
from pathlib import Path

from services.shared.serving.settings import ServingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServingSettings):
    """The certificate is shown to NATS too."""

    postgres_dsn: str
    postgres_password_file: Path | None = None
    nats_url: str
