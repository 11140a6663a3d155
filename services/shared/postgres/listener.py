"""Waking up on NOTIFY: one connection for all watchers of a service.

A watcher waits for its key and then reads the tables; a wake-up says only "look again". Watchers are also woken
when the connection comes back, so that nothing sent meanwhile is missed. Statements notify the channel
`<schema>` with the key as payload.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import asyncpg

from services.shared.background import background
from services.shared.postgres.database import Database

_log = logging.getLogger("parley.postgres")
_RETRY_S = 0.5


class Listener:
    """Wakes the watchers of one channel while `running`."""

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self._channel = channel
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Listens while entered."""
        return background(self._listen)

    @contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever `key` may have changed: clear it, read, wait, repeat."""
        woken = asyncio.Event()
        self._watchers[key].add(woken)
        try:
            yield woken
        finally:
            self._watchers[key].discard(woken)
            if not self._watchers[key]:
                del self._watchers[key]

    async def _listen(self) -> None:
        while True:
            try:
                connection = await self._database.connect()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(_RETRY_S)
                continue
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            try:
                await connection.add_listener(self._channel, self._heard)
                for key in list(self._watchers):
                    self._wake(key)
                await lost.wait()
                _log.warning("listening again after a lost connection")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(_RETRY_S)
            finally:
                connection.terminate()

    def _heard(self, connection: asyncpg.Connection, pid: int, channel: str, key: str) -> None:
        self._wake(key)

    def _wake(self, key: str) -> None:
        for woken in self._watchers.get(key, ()):
            woken.set()
