"""What an installation with documents becomes when it is updated."""

import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import UUID, uuid4

from services.shared.postgres.database import Database
from services.shared.postgres.migrations import apply_migrations
from stack.mesh import PROJECT

KNOWLEDGE = PROJECT / "services" / "knowledge"
EVENT = "parley.knowledge.v1.DocumentUploaded"
TERMS = "0002_search_by_terms.sql"


async def test_what_was_indexed_is_indexed_again_in_the_new_collection(
    database_for: Callable[[str, Path], AbstractAsyncContextManager[Database]], tmp_path: Path
) -> None:
    shutil.copytree(KNOWLEDGE / "migrations", tmp_path / "migrations")
    shutil.copy(KNOWLEDGE / "queries.sql", tmp_path)
    (tmp_path / "migrations" / TERMS).unlink()
    async with database_for("knowledge", tmp_path) as database:
        connection = await database.connect()
        documents: dict[str, UUID] = {}
        for state in ("indexed", "failed", "queued"):
            documents[state] = uuid4()
            await connection.execute(
                "INSERT INTO documents (id, tenant_id, user_id, request_id, filename, size_bytes, sha256, state)"
                " VALUES ($1, $2, $2, $1, 'a.txt', 1, '', $3)",
                *(documents[state], uuid4(), state),
            )
            for event in (EVENT, EVENT.replace("Uploaded", "Indexed")):
                await connection.execute(
                    "INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload, publish_time)"
                    " SELECT $1, tenant_id, id, $2, now() FROM documents WHERE id = $3",
                    *(event, state.encode(), documents[state]),
                )
        shutil.copy(KNOWLEDGE / "migrations" / TERMS, tmp_path / "migrations")
        await apply_migrations(connection, [tmp_path / "migrations"])
        states = dict(await connection.fetch("SELECT id, state FROM documents"))
        events = await connection.fetch(
            "SELECT event_type, aggregate_id, payload FROM outbox WHERE publish_time IS NULL"
        )
        await connection.close()
    assert states == {documents["indexed"]: "queued", documents["failed"]: "failed", documents["queued"]: "queued"}
    assert [tuple(event) for event in events] == [(EVENT, documents["indexed"], b"indexed")]
