"""Reading files in processes that are forked from one which has every format at hand, see extract/forking.py.

A process that begins from nothing imports for longer than most files take to read.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Self

from services.knowledge.extraction import ExtractionProcess, environment

_PROGRAM = "services.knowledge.extract.forking"
_STATUS_BYTES = 16
_STOP_S = 5.0


class ForkedExtraction(ExtractionProcess):
    """Implements indexing.Extraction; opened with `async with`."""

    def __init__(self, memory_bytes: int, cpu_s: int, wall_s: float) -> None:
        super().__init__(memory_bytes, cpu_s, wall_s)
        self._forking = (sys.executable, "-m", _PROGRAM, str(memory_bytes), str(cpu_s), str(wall_s))
        self._process: subprocess.Popen[bytes] | None = None
        self._service: socket.socket | None = None
        self._asking = threading.Lock()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._stop)

    async def _run(self, folder: str, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:  # closed, it ends the reader
            with its:
                await asyncio.to_thread(self._ask, folder, [stdin, stdout, stderr], its)
            ours.setblocking(False)
            try:
                async with asyncio.timeout(self._wall_s):
                    status = await asyncio.get_running_loop().sock_recv(ours, _STATUS_BYTES)
            except TimeoutError:
                return -signal.SIGALRM
        if not status:
            raise RuntimeError(f"{_PROGRAM} has ended")
        return int(status)

    def _ask(self, folder: str, files: list[IO[bytes]], told: socket.socket) -> None:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._asking:
                if self._process is None or self._process.poll() is not None:
                    self._stop()
                    self._start()
                assert self._service
                socket.send_fds(self._service, [b"1"], [*(file.fileno() for file in files), here, told.fileno()])
        finally:
            os.close(here)

    def _start(self) -> None:
        self._service, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                self._forking, stdin=its.fileno(), stdout=subprocess.DEVNULL, env=environment(), cwd="/"
            )

    def _stop(self) -> None:
        if self._service:
            self._service.close()
        if self._process:
            self._process.wait(_STOP_S)
