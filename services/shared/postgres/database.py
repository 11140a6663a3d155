"""A service's PostgreSQL: a pool, its named statements, and driver errors turned into refusals.

Every statement runs by its name in queries.sql; a transaction is needed only where two statements must agree.
"""

import json
from collections.abc import Awaitable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import asyncpg

from services.shared.errors import Invalid, Reason, Unavailable
from services.shared.postgres.migrations import apply_migrations
from services.shared.postgres.queries import load_queries

T = TypeVar("T")
_STATEMENT_TIMEOUT_S = 10.0
_NOT_SERVING = ("53", "57")  # SQLSTATE classes: out of resources, stopped by an operator
_OUTBOX_MIGRATIONS = Path(__file__).parents[1] / "events" / "migrations"


class Database:
    """Opened with `async with`: applies the migrations and keeps the pool."""

    def __init__(self, dsn: str, password_file: Path | None, service_folder: Path, *, max_connections: int = 4) -> None:
        """`service_folder` holds queries.sql and migrations/."""
        self._dsn = dsn
        self._password_file = password_file
        self._folders = (_OUTBOX_MIGRATIONS, service_folder / "migrations")
        self._queries = load_queries(service_folder / "queries.sql")
        self._max_connections = max_connections
        self._pool: asyncpg.Pool | None = None

    async def __aenter__(self) -> Self:
        connection = await self.connect()
        try:
            await apply_migrations(connection, self._folders)
        finally:
            await connection.close()
        self._pool = await asyncpg.create_pool(
            self._dsn,
            password=self._password,
            min_size=self._max_connections,
            max_size=self._max_connections,
            command_timeout=_STATEMENT_TIMEOUT_S,
            init=_use_jsonb,
            reset=_keep,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            await self._pool.close()

    async def connect(self) -> asyncpg.Connection:
        """A connection of its own, for LISTEN or an advisory lock; the caller closes it."""
        return await asyncpg.connect(self._dsn, password=self._password)

    async def probe(self) -> None:
        """Raise unless the database answers; works before the pool is open."""
        if self._pool:
            await self._pool.fetchval("SELECT 1")
        else:
            await (await self.connect()).close()

    async def all(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Every row of the named statement."""
        return await _refusing(self._open_pool().fetch(self._queries[query], *values))

    async def one(self, query: str, *values: object) -> asyncpg.Record | None:
        """The first row of the named statement, or None."""
        return await _refusing(self._open_pool().fetchrow(self._queries[query], *values))

    async def many(self, query: str, rows: Sequence[Sequence[object]]) -> None:
        """Run the named statement once per row, all or none."""
        await _refusing(self._open_pool().executemany(self._queries[query], rows))

    @property
    def _password(self) -> str | None:
        return self._password_file.read_text().strip() if self._password_file else None

    def _open_pool(self) -> asyncpg.Pool:
        assert self._pool, "the database is used before it is opened"
        return self._pool


async def _refusing(work: Awaitable[T]) -> T:
    try:
        return await work
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, TimeoutError) as error:
        raise _unavailable() from error
    except asyncpg.InternalClientError as error:
        # How a connection that broke in the middle of a statement refuses the next one.
        raise _unavailable() from error
    except (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError) as error:
        # The one character of Unicode that protobuf carries and PostgreSQL does not store.
        raise Invalid(Reason.INVALID_FIELD, "Text can't hold the character U+0000.") from error
    except asyncpg.PostgresError as error:
        if error.sqlstate[:2] in _NOT_SERVING:
            raise _unavailable() from error
        raise


def _unavailable() -> Unavailable:
    return Unavailable(Reason.RECORD_UNAVAILABLE, "The record can't be reached just now. Retry with the same request.")


async def _use_jsonb(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def _keep(connection: asyncpg.Connection) -> None:
    """Nothing to put back: no statement of ours changes a session, and asking for it is a round trip of its own."""
