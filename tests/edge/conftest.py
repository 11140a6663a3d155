"""The real Envoy with the real configuration, in front of small servers that run on the services' own serving code."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from services.shared.serving.interceptor import CallRules
from services.shared.serving.server import Service, serve
from services.shared.serving.settings import ServingSettings
from stack import authority, envoy
from stack.mesh import SERVICES, Mesh, Options, open_mesh
from stack.part import accepts_connection
from stack.process import Process
from tests.conftest import Signer
from tests.edge.servers import HANDLERS, OPEN_METHODS, Seen


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A running edge. `seen` is what the servers behind it were asked."""

    mesh: Mesh
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

    def access_log(self) -> str:
        return self.mesh.log_file("envoy").read_text()


@asynccontextmanager
async def edge_in_front(folder: Path, jwks_file: Path, certificates: Mapping[str, str | None]) -> AsyncIterator[Edge]:
    """`certificates` says whose certificate a service shows; None: it speaks plaintext; not named: it does not run."""
    mesh = open_mesh(folder, Options(http_port=0, https_port=0))
    authority.ensure(mesh)
    shutil.copyfile(jwks_file, mesh.data_dir / "jwks.json")
    edge = Edge(mesh=mesh)
    async with AsyncExitStack() as running:
        for service, certificate in certificates.items():
            await running.enter_async_context(_serving(edge, service, certificate))
        process = Process(envoy.part(mesh), mesh.log_file("envoy"), mesh.data_dir)
        await process.start()
        running.push_async_callback(process.stop)
        yield edge


@asynccontextmanager
async def _serving(edge: Edge, service: str, certificate: str | None) -> AsyncIterator[None]:
    mesh, stop = edge.mesh, asyncio.Event()
    port = mesh.ports[f"{service}-1"]
    settings = ServingSettings(
        listen_address=f"127.0.0.1:{port}",
        metrics_address=mesh.address(f"{service}-1-metrics"),
        jwks_file=mesh.data_dir / "jwks.json",
        tls_ca_file=mesh.ca_file if certificate else None,
        tls_cert_file=mesh.cert_file(certificate) if certificate else None,
        tls_key_file=mesh.key_file(certificate) if certificate else None,
        reflection=True,
        stop_grace_s=0,
    )
    handlers = HANDLERS[service]
    running = asyncio.create_task(
        serve(
            Service(
                name=service,
                settings=settings,
                register=[make(edge.seen) for make in handlers.values()],
                proto_services=list(handlers),
                rules=CallRules(open_methods=OPEN_METHODS),
            ),
            stop=stop,
        )
    )
    try:
        while not running.done():
            try:
                await accepts_connection(port)
                break
            except OSError:
                await asyncio.sleep(0.005)  # the port opens when the server has started
        yield
    finally:
        stop.set()
        await running


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
