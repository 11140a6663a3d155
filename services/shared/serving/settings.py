"""Settings are one frozen dataclass per service, read once from PARLEY_* variables.

A field without a default is required. Everything that is missing or malformed is reported together.
"""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path

T = typing.TypeVar("T")


class SettingsError(Exception):
    """The environment can't start this service; the message lists every fault."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """The certificate of who speaks: all three files, or none behind a sidecar that does mutual TLS."""

    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    def __post_init__(self) -> None:
        """Raises SettingsError: with one file forgotten, a service would serve anybody in plaintext."""
        files = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        if any(files) and not all(files):
            raise SettingsError("PARLEY_TLS_CA_FILE, _CERT_FILE and _KEY_FILE: set all three, or none behind a sidecar")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingSettings(TlsSettings):
    """What every service needs to serve. Addresses are host:port."""

    listen_address: str
    metrics_address: str
    jwks_file: Path
    reflection: bool = False
    # How long after SIGTERM calls are still taken, so that callers learn from health to go elsewhere.
    lame_duck_s: float = 0.0
    # How long running calls may take to finish after that.
    stop_grace_s: float = 10.0
    # The longest a stream may stay open, whatever deadline its caller set.
    max_stream_s: float = 3600.0
    # How often a silent connection is asked whether its other end is still there; callers may ask three times as often.
    keepalive_s: float = 30.0


def read_settings(kind: type[T], environ: Mapping[str, str] = os.environ) -> T:
    """Build `kind` from the variables PARLEY_<FIELD>; raise SettingsError that names every fault at once."""
    values: dict[str, object] = {}
    faults: list[str] = []
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # T is a dataclass by contract
        variable = f"PARLEY_{field.name.upper()}"
        raw = environ.get(variable, "")
        if raw:
            try:
                values[field.name] = _parse(raw, hints[field.name])
            except ValueError as error:
                faults.append(f"{variable}={raw!r}: {error}")
        elif field.default is dataclasses.MISSING:
            faults.append(f"{variable} is not set")
    if faults:
        raise SettingsError("\n".join(faults))
    return kind(**values)


def _parse(raw: str, hint: object) -> object:
    if isinstance(hint, types.UnionType):  # X | None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    if hint is bool:
        if raw not in ("0", "1"):
            raise ValueError("must be 0 or 1")
        return raw == "1"
    return hint(raw)  # type: ignore[operator]  # str, int, float, Path
