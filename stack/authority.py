"""The local certificate authority, the token signing key and every password of one mesh.

Everything is made on first use and kept; `ensure` repairs what is missing, expiring or no longer fits
together, and touches nothing else. A leaf names its holder twice: a SPIFFE URI for policy, a DNS name
because NATS binds users by it and gRPC clients check it.
"""

import base64
import hashlib
import ipaddress
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stack.mesh import SERVICES, Mesh, write_atomically

TRUST_DOMAIN = "parley.local"
WORKLOADS = ("edge", *SERVICES, "triton", "nats", "operator")
"""Holders of a mesh certificate; `operator` is the person or the supervisor at this machine."""
BROWSER_FACING = "edge-server"

CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=800)
RENEW_BEFORE = timedelta(days=400)
"""A mesh may run this long after `up` without a certificate running out."""

SECRETS = (
    *(f"postgres-{role}" for role in (*SERVICES, "operator")),
    "valkey-chat",
    "valkey-operator",
    "s3-access-key",
    "s3-secret-key",
)


def ensure(mesh: Mesh, now: datetime | None = None) -> None:
    """Make or renew what this mesh needs to prove who is who. `now` is for tests."""
    now = now or datetime.now(UTC)
    for folder in ("tls", "secrets"):
        mesh.directory(folder).chmod(0o700)
    _ensure_certificates(mesh, now)
    _ensure_signing_key(mesh)
    for name in SECRETS:
        _ensure_file(mesh.secret_file(name), lambda: secrets.token_urlsafe(32))
    _ensure_file(mesh.data_dir / "admin-password", lambda: secrets.token_urlsafe(18))


def thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638 thumbprint of an Ed25519 public key, whose members RFC 8037 names."""
    members = json.dumps({name: jwk[name] for name in ("crv", "kty", "x")}, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(members.encode()).digest())


def _ensure_signing_key(mesh: Mesh) -> None:
    path = mesh.secret_file("signing-key.pem")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):  # none, or a damaged one: whoever is signed in signs in again
        key = ed25519.Ed25519PrivateKey.generate()
        write_atomically(path, _private_pem(key), mode=0o600)
    path.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": _base64url(public)}
    jwk |= {"kid": thumbprint(jwk), "alg": "EdDSA", "use": "sig"}
    write_atomically(mesh.data_dir / "jwks.json", json.dumps({"keys": [jwk]}, indent=1) + "\n")


def _ensure_file(path: Path, make: Callable[[], str]) -> None:
    if not path.exists() or not path.stat().st_size:
        write_atomically(path, make().rstrip("\n") + "\n", mode=0o600)
    path.chmod(0o600)


def _ensure_certificates(mesh: Mesh, now: datetime) -> None:
    ca, ca_key = _read_pair(mesh.ca_file, mesh.key_file("ca"))
    # A leaf must never outlive its authority, so the authority is replaced, with all leaves, while both
    # still hold.
    if ca is None or ca_key is None or ca.not_valid_after_utc < now + LEAF_LIFETIME or not _fits(ca, ca_key):
        ca, ca_key = _make_authority(now)
        _write_pair(mesh, "ca", ca, ca_key)
    for name in (*WORKLOADS, BROWSER_FACING):
        leaf, key = _read_pair(mesh.cert_file(name), mesh.key_file(name))
        if (
            leaf is None
            or leaf.not_valid_after_utc < now + RENEW_BEFORE
            or not _fits(leaf, key)
            or not _issued(leaf, ca)
        ):
            _write_pair(mesh, name, *_make_leaf(name, ca, ca_key, now))


def _make_authority(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The random part lets a browser that trusts an older local authority tell the two apart.
    name = _common_name(f"Parley local authority {secrets.token_hex(4)}")
    builder = (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return builder.sign(key, hashes.SHA256()), key


def _make_leaf(
    name: str, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    if name == BROWSER_FACING:
        loopback = [ipaddress.ip_address(address) for address in ("127.0.0.1", "::1")]
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), *map(x509.IPAddress, loopback)]
    else:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        uri = f"spiffe://{TRUST_DOMAIN}/ns/parley/sa/{name}"
        names = [x509.UniformResourceIdentifier(uri), x509.DNSName(name)]
    builder = (
        _builder(_common_name(name), ca.subject, key.public_key(), now, LEAF_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return builder.sign(ca_key, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(**granted: bool) -> x509.KeyUsage:
    usages = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{usage: granted.get(usage, False) for usage in usages})


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _read_pair(cert: Path, key: Path) -> tuple[x509.Certificate | None, ec.EllipticCurvePrivateKey | None]:
    try:
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
    except (FileNotFoundError, ValueError):
        return None, None
    return certificate, loaded if isinstance(loaded, ec.EllipticCurvePrivateKey) else None


def _fits(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey | None) -> bool:
    return key is not None and cert.public_key() == key.public_key()


def _issued(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _write_pair(mesh: Mesh, name: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The key goes first: a certificate on disk then always has its key, even after a crash between the two.
    write_atomically(mesh.key_file(name), _private_pem(key), mode=0o600)
    write_atomically(mesh.cert_file(name), cert.public_bytes(serialization.Encoding.PEM).decode())


def _private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
