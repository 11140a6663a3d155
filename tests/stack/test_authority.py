"""The local authority: who is named in a certificate, what is kept, what is renewed, and who may read the keys."""

import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from stack import authority
from stack.mesh import Mesh, Options


@pytest.fixture
def mesh(tmp_path) -> Mesh:
    mesh = Mesh(data_dir=tmp_path, options=Options(), ports={})
    authority.ensure(mesh)
    return mesh


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def certificate(mesh: Mesh, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(mesh.cert_file(name).read_bytes())


@pytest.mark.parametrize("name", authority.WORKLOADS)
def test_workload_is_named_by_spiffe_uri_and_dns(mesh, name):
    names = certificate(mesh, name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://parley.local/ns/parley/sa/{name}"]
    assert names.get_values_for_type(x509.DNSName) == [name]
    usages = certificate(mesh, name).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_browser_facing_certificate_names_loopback_and_is_no_client(mesh):
    leaf = certificate(mesh, "edge-server")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]


def test_two_workloads_prove_themselves_to_each_other(mesh):
    answer = handshake(server=context(mesh, "session", server=True), client=context(mesh, "chat"), name="session")
    assert ("URI", "spiffe://parley.local/ns/parley/sa/chat") in answer["subjectAltName"]


def test_certificate_of_another_mesh_is_refused(mesh, tmp_path):
    other = Mesh(data_dir=tmp_path / "other", options=Options(), ports={})
    authority.ensure(other)
    with pytest.raises(ssl.SSLError):
        handshake(server=context(mesh, "session", server=True), client=context(other, "chat"), name="session")


def test_second_run_changes_nothing(mesh, tmp_path):
    before = contents(tmp_path)
    authority.ensure(mesh)
    assert contents(tmp_path) == before


def test_keys_and_secrets_are_closed_to_others(mesh, tmp_path):
    secret = [*tmp_path.glob("tls/*-key.pem"), *(tmp_path / "secrets").iterdir(), tmp_path / "admin-password"]
    assert len(secret) > 20
    assert {file.stat().st_mode & 0o777 for file in secret} == {0o600}
    assert {(tmp_path / folder).stat().st_mode & 0o777 for folder in ("tls", "secrets")} == {0o700}


def test_leaves_are_renewed_before_they_expire_and_the_authority_stays(mesh, tmp_path):
    before = contents(tmp_path)
    later = datetime.now(UTC) + authority.LEAF_LIFETIME - authority.RENEW_BEFORE + timedelta(days=1)
    authority.ensure(mesh, now=later)
    after = contents(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    leaves = (*authority.WORKLOADS, authority.BROWSER_FACING)
    assert changed == {f"tls/{name}{suffix}.pem" for name in leaves for suffix in ("", "-key")}
    assert certificate(mesh, "chat").not_valid_after_utc > later + authority.RENEW_BEFORE


def test_authority_is_replaced_before_a_leaf_could_outlive_it(mesh):
    before = certificate(mesh, "ca")
    later = datetime.now(UTC) + authority.CA_LIFETIME - authority.LEAF_LIFETIME + timedelta(days=1)
    authority.ensure(mesh, now=later)
    assert certificate(mesh, "ca").subject != before.subject
    certificate(mesh, "chat").verify_directly_issued_by(certificate(mesh, "ca"))


@pytest.mark.parametrize("damage", ["missing", "garbage", "of another key"])
def test_damaged_leaf_is_made_again(mesh, damage):
    untouched = mesh.cert_file("auth").read_bytes()
    file = mesh.cert_file("chat")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"garbage" if damage == "garbage" else mesh.cert_file("session").read_bytes())
    authority.ensure(mesh)
    handshake(server=context(mesh, "session", server=True), client=context(mesh, "chat"), name="session")
    assert mesh.cert_file("auth").read_bytes() == untouched


def test_lost_secret_is_made_again_and_the_others_stay(mesh):
    kept = mesh.secret("s3-secret-key")
    mesh.secret_file("valkey-chat").unlink()
    authority.ensure(mesh)
    assert len(mesh.secret("valkey-chat")) >= 32
    assert mesh.secret("s3-secret-key") == kept


def test_damaged_signing_key_is_made_again(mesh):
    path = mesh.secret_file("signing-key.pem")
    path.write_text("-----BEGIN PRIVATE KEY-----\ncut off")
    authority.ensure(mesh)
    [published] = json.loads((mesh.data_dir / "jwks.json").read_text())["keys"]
    token = jwt.encode({"sub": "u"}, mesh.secret("signing-key.pem"), algorithm="EdDSA")
    assert jwt.decode(token, jwt.PyJWK(published).key, algorithms=["EdDSA"]) == {"sub": "u"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_published_key_verifies_what_the_signing_key_signs(mesh, tmp_path):
    [key] = json.loads((tmp_path / "jwks.json").read_text())["keys"]
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    assert "d" not in key
    token = jwt.encode({"sub": "u"}, mesh.secret("signing-key.pem"), algorithm="EdDSA", headers={"kid": key["kid"]})
    assert jwt.decode(token, jwt.PyJWK(key).key, algorithms=["EdDSA"]) == {"sub": "u"}


def test_key_id_is_the_thumbprint_of_rfc_8037():
    key = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert authority.thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert len(base64.urlsafe_b64decode(authority.thumbprint(key) + "=")) == 32


def context(mesh: Mesh, name: str, *, server: bool = False) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(mesh.ca_file)
    made.load_cert_chain(mesh.cert_file(name), mesh.key_file(name))
    return made


def handshake(*, server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict:
    """Both ends in memory; the client's certificate as the server saw it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].getpeercert()
