"""Forward-only migrations: each folder's NNNN_*.sql files, in order, each once, under a lock.

They run as the service's own role in its own schema, when the service starts. Replicas that start together wait
for the first one. A file that was applied must never change: its hash is checked.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import asyncpg

_LEDGER = """
CREATE TABLE IF NOT EXISTS migrations (
    name text PRIMARY KEY, sha256 text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now()
)"""


class MigrationChanged(Exception):
    """A migration file differs from the one that was applied; write a new one instead."""


async def apply_migrations(connection: asyncpg.Connection, folders: Sequence[Path]) -> None:
    """Apply what is missing, all in one transaction."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema() || '.migrations'))")
        await connection.execute(_LEDGER)
        applied = dict(await connection.fetch("SELECT name, sha256 FROM migrations"))
        for path in (path for folder in folders for path in sorted(folder.glob("*.sql"))):
            name, sql = f"{path.parent.parent.name}/{path.name}", path.read_text()
            digest = hashlib.sha256(sql.encode()).hexdigest()
            if name not in applied:
                await connection.execute(sql)
                await connection.execute("INSERT INTO migrations (name, sha256) VALUES ($1, $2)", name, digest)
            elif applied[name] != digest:
                raise MigrationChanged(name)
