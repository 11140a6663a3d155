"""What the session service reads from its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.shared.serving.settings import ServingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServingSettings):
    """PARLEY_<FIELD>; the certificate is shown to NATS too."""

    postgres_dsn: str
    postgres_password_file: Path | None = None
    nats_url: str
