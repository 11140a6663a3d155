"""Access tokens as every service reads them."""

import json
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.auth.session import Session
from services.auth.signing import PublishedKeys, SigningKey
from services.shared.errors import Reason, Unauthenticated
from services.shared.serving.identity import TokenVerifier
from services.shared.serving.settings import SettingsError
from stack import authority
from stack.mesh import Mesh, Options, open_mesh
from tests.auth.conftest import an_owner
from tests.auth.fakes import FakeClock


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """Keys as the local mesh makes them."""
    mesh = open_mesh(tmp_path_factory.mktemp("mesh"), Options(http_port=0, https_port=0))
    authority.ensure(mesh)
    return mesh


@pytest.fixture(scope="module")
def jwks_file(mesh: Mesh) -> Path:
    return mesh.data_dir / "jwks.json"


@pytest.fixture(scope="module")
def key(mesh: Mesh) -> SigningKey:
    return SigningKey.read(mesh.secret_file("signing-key.pem"))


def issued(key: SigningKey, lifetime_s: float) -> tuple[Session, str]:
    session, clock = Session(uuid4(), an_owner().user), FakeClock()
    clock.now = clock.now.now(clock.now.tzinfo)
    return session, key.issue(session, clock(), clock() + timedelta(seconds=lifetime_s))


def test_the_services_read_what_was_signed(key: SigningKey, jwks_file: Path) -> None:
    session, token = issued(key, 600)
    caller = TokenVerifier(jwks_file).verify(token)
    assert (caller.tenant_id, caller.user_id) == (session.user.tenant_id, session.user.id)
    assert (caller.session_id, caller.role) == (session.id, "owner")


def test_a_token_expires(key: SigningKey, jwks_file: Path) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        TokenVerifier(jwks_file).verify(issued(key, -1)[1])
    assert refusal.value.reason is Reason.TOKEN_EXPIRED


def test_each_token_has_an_id_and_names_its_key(key: SigningKey, jwks_file: Path) -> None:
    tokens = [issued(key, 600)[1] for _ in range(2)]
    headers = [jwt.get_unverified_header(token) for token in tokens]
    (published,) = json.loads(jwks_file.read_text())["keys"]
    assert all(header == {"alg": "EdDSA", "typ": "JWT", "kid": published["kid"]} for header in headers)
    ids = {jwt.decode(token, options={"verify_signature": False})["jti"] for token in tokens}
    assert len(ids) == 2


async def test_the_readiness_check_knows_whether_the_key_is_published(
    key: SigningKey, jwks_file: Path, tmp_path: Path
) -> None:
    await PublishedKeys(jwks_file).probe_for(key)
    other = tmp_path / "jwks.json"
    other.write_text('{"keys": []}')
    with pytest.raises(LookupError):
        await PublishedKeys(other).probe_for(key)


def test_what_is_no_ed25519_key_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"", b"garbage", pem):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match="PARLEY_SIGNING_KEY_FILE"):
            SigningKey.read(path)
    with pytest.raises(SettingsError):
        SigningKey.read(tmp_path / "missing.pem")
