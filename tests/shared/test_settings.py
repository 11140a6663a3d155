"""Settings from the environment."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from services.shared.serving.settings import SettingsError, TlsSettings, read_settings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One field of each kind."""

    listen_address: str
    jwks_file: Path
    tls_ca_file: Path | None = None
    reflection: bool = False
    stop_grace_s: float = 10.0
    replicas: int = 1
    chat_models: tuple[str, ...] = ("chat",)


REQUIRED = {"PARLEY_LISTEN_ADDRESS": "127.0.0.1:5001", "PARLEY_JWKS_FILE": "/keys/jwks.json"}


def test_every_kind_of_value_is_read() -> None:
    optional = {
        "PARLEY_TLS_CA_FILE": "/tls/ca.pem",
        "PARLEY_REFLECTION": "1",
        "PARLEY_STOP_GRACE_S": "2.5",
        "PARLEY_REPLICAS": "3",
        "PARLEY_CHAT_MODELS": "chat, echo,",
    }
    assert read_settings(Settings, REQUIRED | optional) == Settings(
        listen_address="127.0.0.1:5001",
        jwks_file=Path("/keys/jwks.json"),
        tls_ca_file=Path("/tls/ca.pem"),
        reflection=True,
        stop_grace_s=2.5,
        replicas=3,
        chat_models=("chat", "echo"),
    )


def test_what_is_not_set_or_empty_has_its_default() -> None:
    settings = read_settings(Settings, REQUIRED | {"PARLEY_TLS_CA_FILE": "", "OTHER": "x"})
    assert settings == Settings(listen_address="127.0.0.1:5001", jwks_file=Path("/keys/jwks.json"))


def test_all_faults_are_named_at_once() -> None:
    environ = {"PARLEY_LISTEN_ADDRESS": "", "PARLEY_REFLECTION": "yes", "PARLEY_REPLICAS": "two"}
    with pytest.raises(SettingsError) as failed:
        read_settings(Settings, environ)
    assert str(failed.value).splitlines() == [
        "PARLEY_LISTEN_ADDRESS is not set",
        "PARLEY_JWKS_FILE is not set",
        "PARLEY_REFLECTION='yes': must be 0 or 1",
        "PARLEY_REPLICAS='two': invalid literal for int() with base 10: 'two'",
    ]


@pytest.mark.parametrize("forgotten", ["CA", "CERT", "KEY"])
def test_a_forgotten_certificate_file_never_means_plaintext(forgotten: str) -> None:
    environ = {f"PARLEY_TLS_{name}_FILE": f"/tls/{name}.pem" for name in ("CA", "CERT", "KEY")}
    assert read_settings(TlsSettings, environ).tls_key_file == Path("/tls/KEY.pem")
    with pytest.raises(SettingsError, match="all three"):
        read_settings(TlsSettings, environ | {f"PARLEY_TLS_{forgotten}_FILE": ""})
