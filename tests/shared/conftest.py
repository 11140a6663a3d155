"""What the tests of the shelf share: a service that counts, and one real NATS with the certificates of a mesh."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from services.shared.postgres.database import Database
from stack.catalog import running
from stack.mesh import Mesh

TALLY = Path(__file__).with_name("tally")


@pytest.fixture
async def tally(
    database_for: Callable[[str, Path], AbstractAsyncContextManager[Database]],
) -> AsyncIterator[Database]:
    """A database of its own for each test; its LISTEN channel is `tally`."""
    async with database_for("tally", TALLY) as database:
        yield database


@pytest.fixture(scope="session")
async def nats_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A running NATS; its streams were declared by the command that the stack runs, as the operator."""
    async with running(tmp_path_factory.mktemp("nats"), "nats") as mesh:
        yield mesh
