"""Migrations on real PostgreSQL."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from services.shared.postgres.migrations import MigrationChanged, apply_migrations
from stack.mesh import Mesh
from stack.postgres import connect


class Schema:
    """An empty schema, and connections that work in it as a starting service does."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.name = f"test_{secrets.token_hex(6)}"

    async def connect(self) -> asyncpg.Connection:
        connection = await connect(self._mesh)
        await connection.execute(f"SET search_path = {self.name}")
        return connection


@pytest.fixture
async def schema(postgres: Mesh) -> AsyncIterator[Schema]:
    schema = Schema(postgres)
    operator = await connect(postgres)
    await operator.execute(f"CREATE SCHEMA {schema.name}")
    yield schema
    await operator.execute(f"DROP SCHEMA {schema.name} CASCADE")
    await operator.close()


@pytest.fixture
async def connection(schema: Schema) -> AsyncIterator[asyncpg.Connection]:
    connection = await schema.connect()
    yield connection
    await connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "counting" / "migrations"
    folder.mkdir(parents=True)
    (folder / "0001_counts.sql").write_text("CREATE TABLE counts (n int); INSERT INTO counts VALUES (1)")
    (folder / "0002_more.sql").write_text("INSERT INTO counts SELECT n + 1 FROM counts")
    return folder


async def _counts(connection: asyncpg.Connection) -> list[int]:
    return [row["n"] for row in await connection.fetch("SELECT n FROM counts ORDER BY n")]


async def test_files_are_applied_in_order_and_only_once(connection: asyncpg.Connection, folder: Path) -> None:
    await apply_migrations(connection, [folder])
    await apply_migrations(connection, [folder])
    assert await _counts(connection) == [1, 2]
    names = await connection.fetch("SELECT name FROM migrations ORDER BY name")
    assert [row["name"] for row in names] == ["counting/0001_counts.sql", "counting/0002_more.sql"]


async def test_a_new_file_is_applied_to_what_is_there(connection: asyncpg.Connection, folder: Path) -> None:
    await apply_migrations(connection, [folder])
    (folder / "0003_last.sql").write_text("INSERT INTO counts VALUES (99)")
    await apply_migrations(connection, [folder])
    assert await _counts(connection) == [1, 2, 99]


async def test_a_changed_file_is_refused_by_name(connection: asyncpg.Connection, folder: Path) -> None:
    await apply_migrations(connection, [folder])
    (folder / "0001_counts.sql").write_text("CREATE TABLE counts (n bigint)")
    (folder / "0003_last.sql").write_text("INSERT INTO counts VALUES (99)")
    with pytest.raises(MigrationChanged, match=r"counting/0001_counts\.sql"):
        await apply_migrations(connection, [folder])
    assert await _counts(connection) == [1, 2]


async def test_a_file_that_fails_leaves_nothing_behind(connection: asyncpg.Connection, folder: Path) -> None:
    (folder / "0003_broken.sql").write_text("INSERT INTO nowhere VALUES (1)")
    with pytest.raises(asyncpg.UndefinedTableError):
        await apply_migrations(connection, [folder])
    assert await connection.fetchval("SELECT to_regclass('counts')") is None


async def test_replicas_that_start_together_apply_each_file_once(schema: Schema, folder: Path) -> None:
    connections = [await schema.connect() for _ in range(4)]
    await asyncio.gather(*(apply_migrations(connection, [folder]) for connection in connections))
    assert await _counts(connections[0]) == [1, 2]
    for connection in connections:
        await connection.close()
