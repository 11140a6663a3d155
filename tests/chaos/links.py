"""Cables that can be cut: a relay on loopback that stands before one listener of the mesh."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

_CHUNK_BYTES = 65_536


class Link:
    """Carries bytes to `target` (a port, asked for at each connection). `cut`: connections are reset and refused.
    `freeze`: bytes stop on the way, and arrive later; `mute`: the same for those that come back."""

    def __init__(self, name: str, target: Callable[[], int]) -> None:
        self.name = name
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._carries: set[asyncio.Task[None]] = set()
        self._cut = False
        self._going, self._coming = asyncio.Event(), asyncio.Event()
        self.mend()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server:
            self._server.close()
        self.mend()
        self.cut()
        await asyncio.gather(*self._carries, return_exceptions=True)

    def cut(self) -> None:
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        self._going.clear()
        self._coming.clear()

    def mute(self) -> None:
        self._coming.clear()

    def mend(self) -> None:
        self._cut = False
        self._going.set()
        self._coming.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._carries.add(task)
        task.add_done_callback(self._carries.discard)
        try:
            await self._carry(reader, writer)
        except OSError:
            pass  # the other side is down: the caller sees a reset
        finally:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target())
        both = {writer, far_writer}
        self._writers |= both
        try:
            ways = [self._pump(reader, far_writer, self._going), self._pump(far_reader, writer, self._coming)]
            tasks = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for end in both:
                end.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._writers -= both
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await flowing.wait()
                writer.write(data)
                await writer.drain()
