"""What tests of every service share: signed tokens, an in-process server, and one real PostgreSQL for all."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.shared.postgres.database import Database
from services.shared.serving.identity import ACCESS_AUDIENCE, ISSUER, TokenVerifier
from services.shared.serving.interceptor import CallInterceptor, CallRules
from stack.catalog import started
from stack.mesh import PROJECT, Mesh
from stack.postgres import connect, part


class Signer:
    """Signs access tokens as auth does, with a key of its own whose JWKS the servers under test read."""

    def __init__(self, folder: Path) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self._key.public_key()))
        self.jwks_file = folder / "jwks.json"
        self.jwks_file.write_text(json.dumps({"keys": [{**public, "kid": "test", "alg": "EdDSA", "use": "sig"}]}))

    def token(
        self,
        *,
        tenant: UUID | None = None,
        user: UUID | None = None,
        role: str = "member",
        expires_in_s: float = 300,
        **claims: object,
    ) -> str:
        now_s = time.time()
        payload = {
            "iss": ISSUER,
            "aud": ACCESS_AUDIENCE,
            "sub": str(user or uuid4()),
            "tenant": str(tenant or uuid4()),
            "sid": str(uuid4()),
            "role": role,
            "iat": int(now_s),
            "exp": int(now_s + expires_in_s),
            **claims,
        }
        return jwt.encode(payload, self._key, algorithm="EdDSA", headers={"kid": "test"})

    def metadata(self, **claims: object) -> tuple[tuple[str, str], ...]:
        """Call metadata with a token of these claims (see `token`)."""
        return (("authorization", f"Bearer {self.token(**claims)}"),)


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


Register = Callable[[grpc.aio.Server], None]
ServeLocally = Callable[..., AbstractAsyncContextManager[grpc.aio.Channel]]


@pytest.fixture(scope="session")
def serve_locally(signer: Signer) -> ServeLocally:
    """`async with serve_locally(register, rules=...) as channel`: the handlers behind the real interceptor."""

    @asynccontextmanager
    async def serving(*register: Register, rules: CallRules | None = None) -> AsyncIterator[grpc.aio.Channel]:
        calls = CallInterceptor(TokenVerifier(signer.jwks_file), rules or CallRules(), None, 60.0)
        server = grpc.aio.server(interceptors=[calls])
        for add in register:
            add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            await server.stop(None)

    return serving


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A real PostgreSQL with the roles of the mesh, for the whole run."""
    with started(tmp_path_factory.mktemp("stack"), lambda mesh: part(mesh, durable=False)) as mesh:
        yield mesh


@pytest.fixture(scope="session")
def database_for(postgres: Mesh) -> Callable[[str], AbstractAsyncContextManager[Database]]:
    """`async with database_for("session") as database`: the service's Database, migrated, on a database of its own.

    Tests of the shelf give a folder of their own instead of the service's.
    """

    @asynccontextmanager
    async def opened(service: str, folder: Path | None = None) -> AsyncIterator[Database]:
        name = f"test_{secrets.token_hex(6)}"
        operator = await connect(postgres)
        await operator.execute(f"CREATE DATABASE {name}")
        try:
            own = await connect(postgres, database=name)
            await own.execute(f'CREATE SCHEMA "{service}"')
            await own.close()
            dsn = f"postgresql://operator@{postgres.address('postgres')}/{name}?options=-csearch_path%3D{service}"
            password_file = postgres.secret_file("postgres-operator")
            async with Database(dsn, password_file, folder or PROJECT / "services" / service) as database:
                yield database
        finally:
            await operator.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await operator.close()

    return opened
