"""A running mesh and its users, as the journeys see them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from parley.auth.v1.auth_service_pb2 import RegisterRequest
from parley.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from stack.mesh import Mesh, Options
from stack.postgres import connect

PROGRAMS = Path(sys.executable).parent
Metadata = tuple[tuple[str, str], ...]


def parley(*arguments: str, timeout_s: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the `parley` command line; its output, both streams apart."""
    return subprocess.run(
        [PROGRAMS / "parley", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class RunningMesh:
    """A mesh in a data directory, started or not."""

    data_dir: Path

    @property
    def endpoints(self) -> dict[str, Any]:
        return dict(json.loads((self.data_dir / "endpoints.json").read_text()))

    @property
    def http(self) -> str:
        return str(self.endpoints["edge"]["http"])

    @property
    def https(self) -> str:
        return str(self.endpoints["edge"]["https"])

    def parley(self, command: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        words = command.split()  # "faq add"
        return parley(*words, f"--data-dir={self.data_dir}", *arguments, **options)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.parley("status", "--json").stdout))

    def kill(self, part: str) -> None:
        """kill -9 the process of a part."""
        os.kill(self.status()["parts"][part]["pid"], signal.SIGKILL)

    def certificate(self, name: str) -> tuple[bytes, bytes, bytes]:
        """Authority, key and certificate of a mesh service."""
        tls = self.data_dir / "tls"
        return (tls / "ca.pem").read_bytes(), (tls / f"{name}-key.pem").read_bytes(), (tls / f"{name}.pem").read_bytes()

    async def rows(self, query: str, *values: object, service: str = "chat") -> list[Any]:
        """What a service's own tables hold."""
        planned = Mesh(data_dir=self.data_dir, options=Options(), ports=self.endpoints["ports"])
        connection = await connect(planned)
        try:
            await connection.execute(f"SET search_path = {service}")
            return [tuple(row) for row in await connection.fetch(query, *values)]
        finally:
            await connection.close()

    def replica(self, part: str) -> grpc.aio.Channel:
        """A channel past the edge, in its name, to one replica of a service."""
        authority, key, certificate = self.certificate("edge")
        options = [
            ("grpc.ssl_target_name_override", part.rpartition("-")[0]),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        return grpc.aio.secure_channel(f"127.0.0.1:{self.endpoints['ports'][part]}", credentials, options)


@dataclass(frozen=True)
class User:
    """A signed-in owner of an organisation of its own."""

    email: str
    password: str
    tenant_id: str
    token: str
    refresh_token: str

    @property
    def metadata(self) -> Metadata:
        return (("authorization", f"Bearer {self.token}"),)

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.metadata)


async def register(channel: grpc.aio.Channel) -> User:
    """A new organisation with its owner."""
    email, password = f"{uuid4().hex}@example.com", uuid4().hex
    request = RegisterRequest(
        request_id=str(uuid4()), organisation_name="Example", email=email, password=password, display_name="Ada"
    )
    response = await AuthServiceStub(channel).Register(request)
    tokens = response.tokens
    return User(email, password, response.user.tenant_id, tokens.access_token, tokens.refresh_token)
