"""Publishes the outbox: in order of each aggregate, at least once, and never in the way of a call.

One replica of a service relays at a time: the one that holds the advisory lock. Each event carries its outbox id as
Nats-Msg-Id, so that what is published twice after a crash is stored once. Without NATS the rows wait.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from uuid import UUID

import asyncpg
import nats.errors
from nats.js import JetStreamContext

from services.shared.background import background
from services.shared.events.bus import Bus
from services.shared.events.streams import subject_of
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.postgres.queries import load_queries

_log = logging.getLogger("parley.events")
_queries = load_queries(Path(__file__).with_name("queries.sql"))
_BATCH = 200
_RETRY_S = 1.0
_LOOK_S = 1.0  # without a wake-up
# Events that come together cost one look instead of one each; where there are many, callers go before events.
_GATHER_S, _BUSY_S, _MANY = 0.02, 0.5, 10


class Relay:
    """Relays one service's outbox while `running`."""

    def __init__(self, database: Database, listener: Listener, bus: Bus) -> None:
        self._database = database
        self._listener = listener
        self._bus = bus

    def running(self) -> AbstractAsyncContextManager[None]:
        """Relays while entered."""
        return background(self._run)

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._database.connect()
                try:
                    await self._relay(connection)
                finally:
                    connection.terminate()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, nats.errors.Error, TimeoutError) as error:
                _log.warning("the relay waits", extra={"facts": {"error": repr(error)}})
                await asyncio.sleep(_RETRY_S)

    async def _relay(self, connection: asyncpg.Connection) -> None:
        # A mark that a crash of PostgreSQL takes back only publishes again what NATS knows by its id.
        await connection.execute("SET synchronous_commit = off")
        await connection.execute(_queries["lock_relay"])  # waits while another replica relays
        with self._listener.watch("outbox") as woken:
            while True:
                woken.clear()
                while rows := await connection.fetch(_queries["unpublished"], _BATCH):
                    await self._publish(rows)
                    await connection.execute(_queries["mark_published"], [row["position"] for row in rows])
                    await asyncio.sleep(_BUSY_S if _MANY <= len(rows) < _BATCH else _GATHER_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await woken.wait()

    async def _publish(self, rows: Sequence[asyncpg.Record]) -> None:
        stream = await self._bus.stream()
        for wave in _waves(rows):
            await asyncio.gather(*(_send(stream, row) for row in wave))


def _waves(rows: Sequence[asyncpg.Record]) -> Sequence[Sequence[asyncpg.Record]]:
    """What may be on its way together: at most one event of each aggregate, so that none overtakes another."""
    waves: list[list[asyncpg.Record]] = []
    before: Counter[UUID] = Counter()
    for row in rows:
        number = before[row["aggregate_id"]]
        before[row["aggregate_id"]] += 1
        if number == len(waves):
            waves.append([])
        waves[number].append(row)
    return waves


async def _send(stream: JetStreamContext, row: asyncpg.Record) -> None:
    event_type = row["event_type"]
    headers = {
        "Nats-Msg-Id": str(row["id"]),
        "ce-specversion": "1.0",
        "ce-id": str(row["id"]),
        "ce-type": event_type,
        "ce-source": "/" + "/".join(event_type.split(".")[:2]),
        "ce-subject": str(row["aggregate_id"]),
        "ce-time": row["create_time"].isoformat(),
        "ce-datacontenttype": "application/protobuf",
        "parley-tenant": str(row["tenant_id"]),
    }
    await stream.publish(subject_of(event_type), row["payload"], headers=headers)
