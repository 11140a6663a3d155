"""One whole mesh for all journeys: every real component, started as a user starts it."""

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from tests.mesh.running import RunningMesh, User, parley, register


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    data_dir = tmp_path_factory.mktemp("mesh")
    options = ("--port=0", "--tls-port=0", "--chat-models=chat,echo")
    started = parley("up", "--detach", f"--data-dir={data_dir}", *options)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield RunningMesh(data_dir)
    finally:
        parley("down", f"--data-dir={data_dir}")


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
