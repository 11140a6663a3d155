"""What auth is told at start: PARLEY_* variables, see services/shared/serving/settings.py."""

from dataclasses import dataclass
from pathlib import Path

from services.shared.serving.settings import ServingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServingSettings):
    """Files hold one value each. The certificate is shown to NATS too."""

    postgres_dsn: str
    postgres_password_file: Path | None = None
    nats_url: str
    signing_key_file: Path  # Ed25519, PKCS#8 PEM; its public half must be in jwks_file
    admin_password_file: Path
    access_lifetime_s: float = 600.0
    refresh_lifetime_s: float = 14 * 24 * 3600.0
    # Password checks at once (64 MiB and one core each), and how many more may wait.
    password_workers: int = 2
    password_queue: int = 16
