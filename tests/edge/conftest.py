"""The real Envoy with the real configuration, in front of small servers that run on the services' own serving code."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.shared.serving.interceptor import CallRules
from services.shared.serving.server import Service, serve
from services.shared.serving.settings import ServingSettings
from stack import authority, envoy
from stack.memory import pss_bytes
from stack.mesh import SERVICES, Mesh, Options, open_mesh
from stack.part import accepts_connection
from stack.process import Process
from tests.conftest import Signer
from tests.edge.servers import HANDLERS, OPEN_METHODS, Seen

NO_PORTS = Options(http_port=0, https_port=0)


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A running edge. `seen` is what the servers behind it were asked."""

    mesh: Mesh
    process: Process
    seen: Seen = field(default_factory=Seen)

    @property
    def url(self) -> str:
        return f"http://{self.mesh.address('edge-http')}"

    @property
    def tls_url(self) -> str:
        return f"https://localhost:{self.mesh.ports['edge-https']}"

    @property
    def target(self) -> str:
        return self.mesh.address("edge-http")

    def memory(self) -> int:
        """PSS of Envoy in bytes."""
        return pss_bytes(self.process.pid or 0)

    def access_log(self) -> str:
        return self.mesh.log_file("envoy").read_text()


@asynccontextmanager
async def edge_in_front(
    folder: Path,
    jwks_file: Path,
    certificates: Mapping[str, str | None],
    *,
    options: Options = NO_PORTS,
    changed: Callable[[str], str] | None = None,
    **settings: Any,
) -> AsyncIterator[Edge]:
    """`certificates` says whose certificate a service shows; None: it speaks plaintext; not named: it does not run.

    `changed` makes another configuration of the edge's own; `settings` are those of the servers.
    """
    mesh = open_mesh(folder, options)
    authority.ensure(mesh)
    shutil.copyfile(jwks_file, mesh.data_dir / "jwks.json")
    part = envoy.part(mesh)
    if changed:
        part = replace(part, prepare=None)
        (mesh.directory("envoy") / "edge.yaml").write_text(changed(envoy.render(mesh)))
    process = Process(part, mesh.log_file("envoy"), mesh.data_dir)
    edge = Edge(mesh=mesh, process=process)
    async with AsyncExitStack() as running:
        for service, certificate in certificates.items():
            await running.enter_async_context(serving(edge, f"{service}-1", certificate, **settings))
        await process.start()
        running.push_async_callback(process.stop)
        yield edge


@asynccontextmanager
async def serving(
    edge: Edge, replica: str, certificate: str | None, **settings: Any
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A replica of a service behind the edge; gives what stops it as SIGTERM would."""
    mesh, stop, service = edge.mesh, asyncio.Event(), replica.rpartition("-")[0]
    port = mesh.ports[replica]
    own: dict[str, Any] = {
        "listen_address": f"127.0.0.1:{port}",
        "metrics_address": mesh.address(f"{replica}-metrics"),
        "jwks_file": mesh.data_dir / "jwks.json",
        "tls_ca_file": mesh.ca_file if certificate else None,
        "tls_cert_file": mesh.cert_file(certificate) if certificate else None,
        "tls_key_file": mesh.key_file(certificate) if certificate else None,
        "reflection": True,
        "stop_grace_s": 0,
    }
    handlers = HANDLERS[service]
    running = asyncio.create_task(
        serve(
            Service(
                name=service,
                settings=ServingSettings(**{**own, **settings}),
                register=[make(edge.seen) for make in handlers.values()],
                proto_services=list(handlers),
                rules=CallRules(open_methods=OPEN_METHODS),
            ),
            stop=stop,
        )
    )

    async def stopped() -> None:
        stop.set()
        await running

    try:
        while not running.done():
            try:
                await accepts_connection(port)
                break
            except OSError:
                await asyncio.sleep(0.005)  # the port opens when the server has started
        yield stopped
    finally:
        await stopped()


@pytest.fixture(scope="session")
async def edge(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> AsyncIterator[Edge]:
    own = {service: service for service in SERVICES}
    async with edge_in_front(tmp_path_factory.mktemp("edge"), signer.jwks_file, own) as edge:
        yield edge


@pytest.fixture(scope="session")
async def rest(edge: Edge, signer: Signer) -> AsyncIterator[httpx.AsyncClient]:
    """A REST client with a token."""
    headers = {"authorization": f"Bearer {signer.token()}"}
    async with httpx.AsyncClient(base_url=edge.url, headers=headers, timeout=10) as client:
        yield client
