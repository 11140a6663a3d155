"""Turn logs in Valkey: a stream per turn, whose entry ids are the sequence numbers.

Valkey refuses an id that is not above the last one, so a number is written once, whoever tries. A log lives for a day
after its turn's end. What all turns append at one moment goes out in one pipeline, over one connection. As long as
that connection lasts, Valkey has lost nothing; over a new one, the end of each turn's log is looked at before more is
written to it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import redis.asyncio as redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError, ResponseError

from services.chat import wire
from services.chat.live import READER_SHOWN_S, LogBehind, TurnTaken
from services.chat.turn import Cancelled, Completed, Entry, Failed, Rewound, TextDelta
from services.shared.errors import Reason, Unavailable

KEPT_S = 24 * 3600
_PAGE_ENTRIES = 256
_TIMEOUT_S = 0.5  # an answer that pauses for a second is taken for a broken stream: go on without the log before
_READING_CONNECTIONS = 16
# One for each turn of another replica that is followed here; readers who wait never take another's connection.
_WAITING_CONNECTIONS = 256
_RECONNECT_S = 0.2
_EVENT, _NOTE = b"event", b"note"
Command = tuple[bytes | str | int, ...]
_NUMBER_GIVEN = "equal or smaller than"  # how Valkey refuses an id
# An entry that makes void all before it but the first one, in one step: nobody may read an end that is none any more.
_REWIND = b"""
redis.call('XADD', KEYS[1], ARGV[1], 'event', ARGV[2])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(1-0', '(' .. ARGV[1])) do
    redis.call('XDEL', KEYS[1], entry[1])
end
"""


class ValkeyTurnLog:
    """Implements live.TurnLog; opened with `async with`."""

    def __init__(self, url: str, password_file: Path | None) -> None:
        password = password_file.read_text().strip() if password_file else None
        self._pipe = _Pipe(url, password)
        self._client = _client(url, password, _READING_CONNECTIONS)
        self._waiting = _client(url, password, _WAITING_CONNECTIONS)
        self._looked_at: dict[UUID, int] = {}  # over which connection the end of a turn's log was last known

    async def __aenter__(self) -> Self:
        self._pipe.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pipe.close()
        await self._client.aclose()
        await self._waiting.aclose()

    @property
    def incarnation(self) -> str | None:
        return self._pipe.incarnation

    async def probe(self) -> None:
        """Raise unless Valkey lets this service in now."""
        await self._client.ping()

    async def begin(self, turn_id: UUID) -> None:
        await self._look(turn_id, 0)

    async def append(
        self, turn_id: UUID, after: int, entries: Sequence[Entry], *, incarnation: str | None = None
    ) -> str | None:
        looked_at = self._looked_at.get(turn_id)
        if looked_at is None or looked_at != self._pipe.connections:
            await self._look(turn_id, after)
        present = self._pipe.incarnation
        if incarnation not in (None, present):
            raise _unavailable()
        commands = [_add(turn_id, entry) for entry in entries]
        if len(entries) > 1 or not isinstance(entries[0].event, TextDelta):
            commands.append(("EXPIRE", _key(turn_id), KEPT_S))
        try:
            await self._pipe.run(*commands, over=self._looked_at[turn_id])
        except ResponseError as error:
            if _NUMBER_GIVEN not in str(error):  # such as a full store
                raise _unavailable() from error
            # A number that is refused may be our own append, sent again after the answer to it was lost.
            written = await self.read(turn_id, entries[0].sequence - 1)
            if [entry.encoded for entry in written[: len(entries)]] != [entry.encoded for entry in entries]:
                self._looked_at.pop(turn_id, None)
                raise TurnTaken(str(turn_id)) from error
        if isinstance(entries[-1].event, Completed | Failed | Cancelled):
            self._looked_at.pop(turn_id, None)
        return present

    async def last(self, turn_id: UUID) -> Entry | None:
        _, (rows,) = await self._pipe.run(("XREVRANGE", _key(turn_id), "+", "-", "COUNT", 1))
        return _entry(dict(zip(rows[0][1][::2], rows[0][1][1::2], strict=True))) if rows else None

    async def read(self, turn_id: UUID, after: int, *, wait_s: float = 0) -> list[Entry]:
        key, last_id = _key(turn_id), _id(after)
        rows: Any  # the client's types cover every protocol version at once
        try:
            if wait_s:
                rows = await self._first_rows(key, last_id, wait_s)
            else:
                rows = await self._client.xrange(key, min=f"({last_id}", count=_PAGE_ENTRIES)
        except RedisError as error:
            raise _unavailable() from error
        return [_entry(fields) for _, fields in rows]

    async def _first_rows(self, key: str, last_id: str, wait_s: float) -> Any:
        clock = asyncio.get_running_loop().time
        until_s = clock() + wait_s
        while (left_s := until_s - clock()) > 0:  # a longer wait at once would look like a dead connection
            block = max(1, round(min(left_s, _TIMEOUT_S) * 1000))
            streams: Any = await self._waiting.xread({key: last_id}, count=_PAGE_ENTRIES, block=block)
            if streams:
                return streams[0][1]
        return ()

    async def show_reader(self, turn_id: UUID) -> None:
        await self._pipe.run(("SET", _readers_key(turn_id), "1", "PX", round(READER_SHOWN_S * 1000)))

    async def has_reader(self, turn_id: UUID) -> bool:
        _, (found,) = await self._pipe.run(("EXISTS", _readers_key(turn_id)))
        return bool(found)

    async def _look(self, turn_id: UUID, after: int) -> None:
        """Make sure, over the present connection, that the log ends with the number `after`."""
        connection, (rows,) = await self._pipe.run(("XREVRANGE", _key(turn_id), "+", "-", "COUNT", 1))
        last = int(rows[0][0].partition(b"-")[0]) if rows else 0
        self._looked_at[turn_id] = connection
        if last < after:
            raise LogBehind(last)


class _Pipe:
    """One connection; whatever waits when it is free is sent together. It is made again when it broke."""

    def __init__(self, url: str, password: str | None) -> None:
        options: dict[str, Any] = dict(parse_url(url))
        self._make = options.pop("connection_class", Connection)
        self._options = {**options, "password": password, "socket_timeout": None, "socket_connect_timeout": _TIMEOUT_S}
        self._waiting: list[tuple[Sequence[Command], int | None, asyncio.Future[tuple[int, list[Any]]]]] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.connections = 0  # counts them, so that each has its number
        self.incarnation: str | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def run(self, *commands: Command, over: int | None = None) -> tuple[int, list[Any]]:
        """The number of the connection, and an answer to each command. Raises Unavailable, ResponseError.

        `over` names the only connection that they may go over.
        """
        assert self._task, "the log is used before it is opened"
        answer: asyncio.Future[tuple[int, list[Any]]] = self._task.get_loop().create_future()
        self._waiting.append((commands, over, answer))
        self._news.set()
        return await answer

    async def _serve(self) -> None:
        while True:
            connection = self._make(**self._options)
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await connection.connect()
                    await connection.send_command("INFO", "server")
                    self.incarnation = _run_id(await connection.read_response())
                self.connections += 1
                while True:
                    await self._news.wait()
                    await self._exchange(connection)
            except (RedisError, OSError, TimeoutError):
                self._fail()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RECONNECT_S):
                        while True:  # who comes meanwhile is told at once
                            await self._news.wait()
                            self._fail()
            finally:
                await connection.disconnect(nowait=True)

    async def _exchange(self, connection: Connection) -> None:
        self._news.clear()
        waiting, self._waiting = self._waiting, []
        try:
            fit = [each for each in waiting if each[1] in (None, self.connections)]
            packed = connection.pack_commands([command for commands, _, _ in fit for command in commands])
            async with asyncio.timeout(_TIMEOUT_S):
                await connection.send_packed_command(packed)
                for commands, _, answer in fit:
                    await self._answer(connection, commands, answer)
        finally:
            for _, _, answer in waiting:
                if not answer.done():
                    answer.set_exception(_unavailable())

    async def _answer(
        self, connection: Connection, commands: Sequence[Command], answer: "asyncio.Future[tuple[int, list[Any]]]"
    ) -> None:
        answers, refused = [], None
        for _ in commands:
            try:
                answers.append(await connection.read_response(disconnect_on_error=False))
            except ResponseError as error:
                refused = error
        if answer.done():  # who asked has gone
            return
        if refused:
            answer.set_exception(refused)
        else:
            answer.set_result((self.connections, answers))

    def _fail(self) -> None:
        self._news.clear()
        waiting, self._waiting = self._waiting, []
        for _, _, answer in waiting:
            if not answer.done():
                answer.set_exception(_unavailable())


def _client(url: str, password: str | None, connections: int) -> redis.Redis:
    pool = redis.BlockingConnectionPool.from_url(
        url,
        password=password,
        max_connections=connections,
        timeout=None,
        socket_timeout=2 * _TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(ConstantBackoff(0.05), 1),
    )
    return redis.Redis.from_pool(pool)


def _add(turn_id: UUID, entry: Entry) -> Command:
    if isinstance(entry.event, Rewound):
        return ("EVAL", _REWIND, 1, _key(turn_id), _id(entry.sequence), entry.encoded)
    fields: Command = (_EVENT, entry.encoded)
    if entry.note:
        fields += (_NOTE, entry.note)
    return ("XADD", _key(turn_id), _id(entry.sequence), *fields)


def _entry(fields: dict[bytes, bytes]) -> Entry:
    return wire.decode(fields[_EVENT], fields.get(_NOTE, b"").decode())


def _run_id(info: bytes) -> str:
    """Of the answer to INFO: the name of this run of the server."""
    return next(line for line in info.decode().splitlines() if line.startswith("run_id:"))


def _key(turn_id: UUID) -> str:
    return f"turn:{{{turn_id}}}:events"


def _readers_key(turn_id: UUID) -> str:
    return f"turn:{{{turn_id}}}:readers"


def _id(sequence: int) -> str:
    return f"{sequence}-0"


def _unavailable() -> Unavailable:
    return Unavailable(Reason.TURN_LOG_UNAVAILABLE, "The log of turns can't be reached just now. Ask again.")
