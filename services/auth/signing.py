"""The key that signs access tokens, and the public keys that verify them.

The claims are those that services.shared.serving.identity reads. Keys are rotated from outside: put the new public
key into the JWKS file beside the old one, then start auth with the new private key.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_encode

from services.auth.session import Session
from services.shared.serving.identity import ACCESS_AUDIENCE, ISSUER
from services.shared.serving.settings import SettingsError

ALGORITHM = "EdDSA"


class SigningKey:
    """An Ed25519 private key; `kid` is the RFC 7638 thumbprint of its public half."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        public = OKPAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        members = {name: public[name] for name in ("crv", "kty", "x")}  # RFC 8037 names them, RFC 7638 sorts them
        canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
        self.kid = base64url_encode(sha256(canonical.encode()).digest()).decode()

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """From a PKCS#8 PEM file. Raises SettingsError."""
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(f"PARLEY_SIGNING_KEY_FILE={path}: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError(f"PARLEY_SIGNING_KEY_FILE={path}: not an Ed25519 key")
        return cls(key)

    def issue(self, session: Session, issue_time: datetime, expire_time: datetime) -> str:
        """An access token for the session's user."""
        claims = {
            "iss": ISSUER,
            "aud": ACCESS_AUDIENCE,
            "sub": str(session.user.id),
            "tenant": str(session.user.tenant_id),
            "sid": str(session.id),
            "role": session.user.role.value,
            "iat": int(issue_time.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": str(uuid4()),
        }
        return jwt.encode(claims, self._private_key, algorithm=ALGORITHM, headers={"kid": self.kid})


class PublishedKeys:
    """The JWKS file that the edge and every service verify tokens with."""

    def __init__(self, jwks_file: Path) -> None:
        self._jwks_file = jwks_file

    def all(self) -> Sequence[dict[str, str]]:
        """Its keys, as RFC 7517 writes them."""
        return json.loads(self._jwks_file.read_text())["keys"]

    async def probe_for(self, key: SigningKey) -> None:
        """Raise unless tokens signed with `key` would be accepted."""
        if key.kid not in {published["kid"] for published in self.all()}:
            raise LookupError(f"{self._jwks_file} lacks the signing key {key.kid}")
