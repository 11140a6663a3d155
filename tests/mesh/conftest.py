"""One whole mesh for all journeys: every real component, started as a user starts it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest

from stack.mesh import SERVICES, pick_ports
from tests.chaos.mesh import ChaosMesh, running_mesh
from tests.mesh.running import RunningMesh, User, parley, register


@pytest.fixture(scope="session")
def site_port() -> int:
    """Where a test may serve a site that the mesh may crawl."""
    return pick_ports(["site"])["site"]


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, site_port: int) -> Iterator[RunningMesh]:
    data_dir = tmp_path_factory.mktemp("mesh")
    options = ("--port=0", "--tls-port=0", "--chat-models=chat,echo")
    crawls = {"PARLEY_CRAWL_ALLOWED_ADDRESSES": f"127.0.0.1:{site_port}"}
    started = parley("up", "--detach", f"--data-dir={data_dir}", *options, **crawls)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield RunningMesh(data_dir)
    finally:
        parley("down", f"--data-dir={data_dir}")


@pytest.fixture(scope="session")
async def faults(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChaosMesh]:
    """A second mesh, to be broken: two replicas of each service, links of chat that can be cut. Each test mends it."""
    data_dir, replicas = tmp_path_factory.mktemp("pair"), dict.fromkeys(SERVICES, 2)
    # Nobody needs to wait ten seconds for turns that are handed over.
    async with running_mesh(data_dir, replicas, ("echo", "chat"), PARLEY_STOP_GRACE_S="3") as mesh:
        yield mesh


@pytest.fixture(scope="session")
def pair(faults: ChaosMesh) -> RunningMesh:
    """The same, as its users see it."""
    return RunningMesh(faults.data_dir)


@pytest.fixture
async def edge(mesh: RunningMesh) -> Any:
    """A native gRPC channel to the edge."""
    async with grpc.aio.insecure_channel(mesh.http.removeprefix("http://")) as channel:
        yield channel


@pytest.fixture
async def rest(mesh: RunningMesh) -> Any:
    """An HTTP client of the edge's REST side."""
    async with httpx.AsyncClient(base_url=mesh.http, timeout=60) as client:
        yield client


@pytest.fixture
async def user(edge: grpc.aio.Channel) -> User:
    return await register(edge)


@pytest.fixture
async def stranger(edge: grpc.aio.Channel) -> User:
    """Somebody of another organisation."""
    return await register(edge)


@pytest.fixture
async def gate(pair: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    """The edge of that mesh."""
    async with grpc.aio.insecure_channel(pair.http.removeprefix("http://")) as channel:
        yield channel


@pytest.fixture
async def ada(gate: grpc.aio.Channel) -> User:
    """A user of it."""
    return await register(gate)


@pytest.fixture
async def one(pair: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    """Its chat-1, past the edge."""
    async with pair.replica("chat-1") as channel:
        yield channel


@pytest.fixture
async def two(pair: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    """Its chat-2."""
    async with pair.replica("chat-2") as channel:
        yield channel
