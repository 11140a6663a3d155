"""Turn logs in Valkey: a stream per turn, whose entry ids are the sequence numbers.

Valkey refuses an id that is not above the last one, so a number is written once, whoever tries. A log lives for a day
after its turn's end.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError, ResponseError

from services.chat import wire
from services.chat.live import TurnTaken
from services.chat.turn import Entry, TextDelta
from services.shared.errors import Reason, Unavailable

KEPT_S = 24 * 3600
_PAGE_ENTRIES = 256
_TIMEOUT_S = 2.0
# Turns that wait for one of these to append share their next events, which is less work for everybody.
_WRITING_CONNECTIONS = 16
# One for each turn of another replica that is followed here; readers who wait never take a writer's connection.
_WAITING_CONNECTIONS = 256
_FIELD = b"event"
_NUMBER_GIVEN = "equal or smaller than"  # how Valkey refuses an id


class ValkeyTurnLog:
    """Implements live.TurnLog; closed at the end of `async with`."""

    def __init__(self, url: str, password_file: Path | None) -> None:
        self._client = _client(url, password_file, _WRITING_CONNECTIONS)
        self._waiting = _client(url, password_file, _WAITING_CONNECTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()
        await self._waiting.aclose()

    async def probe(self) -> None:
        """Raise unless Valkey lets this service in now."""
        await self._client.ping()

    async def begin(self, turn_id: UUID) -> None:
        try:
            await self._client.unlink(_key(turn_id))
        except RedisError as error:
            raise _unavailable() from error

    async def append(self, turn_id: UUID, entries: Sequence[Entry]) -> None:
        try:
            await self._append(_key(turn_id), entries)
        except ResponseError as error:
            if _NUMBER_GIVEN not in str(error):  # such as a full store
                raise _unavailable() from error
            # A number that is refused may be our own append, sent again after the answer to it was lost.
            written = await self.read(turn_id, entries[0].sequence - 1)
            if [entry.encoded for entry in written] != [entry.encoded for entry in entries]:
                raise TurnTaken(str(turn_id)) from error
        except RedisError as error:
            raise _unavailable() from error

    async def read(self, turn_id: UUID, after: int, *, wait_s: float = 0) -> list[Entry]:
        key, last_id = _key(turn_id), _id(after)
        rows: Any  # the client's types cover every protocol version at once
        try:
            if wait_s:
                streams: Any = await self._waiting.xread(
                    {key: last_id}, count=_PAGE_ENTRIES, block=round(wait_s * 1000)
                )
                rows = streams[0][1] if streams else ()
            else:
                rows = await self._client.xrange(key, min=f"({last_id}", count=_PAGE_ENTRIES)
        except RedisError as error:
            raise _unavailable() from error
        return [wire.decode(fields[_FIELD]) for _, fields in rows]

    async def _append(self, key: str, entries: Sequence[Entry]) -> None:
        if len(entries) == 1 and isinstance(entries[0].event, TextDelta):
            await self._client.xadd(key, {_FIELD: entries[0].encoded}, id=_id(entries[0].sequence))
            return
        pipeline = self._client.pipeline(transaction=False)
        for entry in entries:
            pipeline.xadd(key, {_FIELD: entry.encoded}, id=_id(entry.sequence))
        pipeline.expire(key, KEPT_S)
        await pipeline.execute()


def _client(url: str, password_file: Path | None, connections: int) -> redis.Redis:
    pool = redis.BlockingConnectionPool.from_url(
        url,
        password=password_file.read_text().strip() if password_file else None,
        max_connections=connections,
        timeout=None,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(ConstantBackoff(0.05), 1),
    )
    return redis.Redis.from_pool(pool)


def _key(turn_id: UUID) -> str:
    return f"turn:{{{turn_id}}}:events"


def _id(sequence: int) -> str:
    return f"{sequence}-0"


def _unavailable() -> Unavailable:
    return Unavailable(Reason.TURN_LOG_UNAVAILABLE, "The log of turns can't be reached just now. Ask again.")
