"""Who calls: the peer service from its certificate, the user from the forwarded access token.

No header is trusted. The token is verified here, in every service, against the published keys; the result is
cached under the token's hash until the token expires.
"""

import hashlib
import json
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import grpc
import jwt

from services.shared.errors import Forbidden, Reason, Unauthenticated

ISSUER = "parley"
ACCESS_AUDIENCE = "parley-access"
_SPIFFE_PREFIX = "spiffe://parley.local/ns/parley/sa/"
_CACHE_SIZE = 10_000


@dataclass(frozen=True)
class Caller:
    """The user on whose behalf a call is made. `token` is forwarded to peers, never logged."""

    tenant_id: UUID
    user_id: UUID
    session_id: UUID
    role: str
    expires_at_s: float
    token: str = field(repr=False)


def caller_of(context: grpc.aio.ServicerContext) -> Caller:
    """The verified user of the call that `context` belongs to; only methods that need a token have one."""
    return context.caller  # set by the interceptor's CallContext


class TokenVerifier:
    """Verifies access tokens against a JWKS file, which is read again when it changes."""

    def __init__(self, jwks_file: Path) -> None:
        self._jwks_file = jwks_file
        self._read_at_ns = -1
        self._keys: dict[str, jwt.PyJWK] = {}
        self._cache: dict[bytes, Caller] = {}

    def verify(self, token: str, *, grace_s: float = 0) -> Caller:
        """The caller that `token` names; raises Unauthenticated. A token may have expired `grace_s` ago."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        caller = self._cache.get(digest)
        if caller is None:
            caller = self._decode(token)
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[digest] = caller
        if caller.expires_at_s + grace_s <= time.time():
            raise Unauthenticated(Reason.TOKEN_EXPIRED, "The access token has expired: refresh it.")
        return caller

    def _decode(self, token: str) -> Caller:
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=ACCESS_AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "aud", "iss"], "verify_exp": False},
            )
            return Caller(
                tenant_id=UUID(claims["tenant"]),
                user_id=UUID(claims["sub"]),
                session_id=UUID(claims["sid"]),
                role=str(claims["role"]),
                expires_at_s=float(claims["exp"]),
                token=token,
            )
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, AttributeError) as error:
            message = "The access token is not valid here: sign in again."
            raise Unauthenticated(Reason.TOKEN_INVALID, message) from error

    def _key(self, kid: object) -> jwt.PyJWK:
        changed_at_ns = self._jwks_file.stat().st_mtime_ns
        if changed_at_ns != self._read_at_ns:
            keys = json.loads(self._jwks_file.read_text())["keys"]
            self._keys = {key["kid"]: jwt.PyJWK(key, algorithm="EdDSA") for key in keys}
            self._read_at_ns = changed_at_ns
            self._cache.clear()
        if not isinstance(kid, str):
            raise KeyError("kid")
        return self._keys[kid]


class AllowList:
    """Which mesh services may call which proto service: the data of allow_list.toml."""

    def __init__(self) -> None:
        entries = tomllib.loads(Path(__file__).with_name("allow_list.toml").read_text())
        self.callers = {service: frozenset(names) for service, names in entries.items()}

    def check(self, method: str, context: grpc.aio.ServicerContext) -> None:
        """Raise Forbidden unless the peer's certificate names a service that may call `method` (/service/name)."""
        service = method[1:].rpartition("/")[0]
        peer = peer_of(context)
        if peer not in self.callers.get(service, ()):
            message = f"{peer or 'A caller without a mesh certificate'} may not call {service}."
            raise Forbidden(Reason.PEER_NOT_ALLOWED, message)


def peer_of(context: grpc.aio.ServicerContext) -> str | None:
    """The service account that the peer's certificate names; None without a certificate of this mesh."""
    names = context.auth_context().get("peer_spiffe_id", ())
    if len(names) != 1:
        return None
    name = bytes(names[0]).decode("ascii", "replace")
    return name.removeprefix(_SPIFFE_PREFIX) if name.startswith(_SPIFFE_PREFIX) else None
