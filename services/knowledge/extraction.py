"""Reading files in a process of its own (services.knowledge.extract), which a hostile file may break.

The child gets the file as its input and a file for its output, no variable of our environment but PATH, and an empty
folder to stand in. It limits its own memory, processor time and output, and gives up network, processes and writing;
here it is given a time on the clock.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from services.knowledge.extract.sandbox import libseccomp
from services.knowledge.indexing import Extracted, Unreadable
from services.knowledge.passages import Passage
from services.shared.errors import Reason

_log = logging.getLogger("parley.knowledge")
_PROGRAM = "services.knowledge.extract"
_IMPORT_ROOT = Path(__file__).parents[2]
_LIMIT_SIGNALS = {signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM, signal.SIGXFSZ}
_OUT_OF_MEMORY = 3  # as the program says
_RUST_MEMORY = "memory allocation"  # what a reader written in Rust says before it aborts
_LOGGED_BYTES = 2000


def environment() -> dict[str, str]:
    """All that a reader is told."""
    return {
        "PYTHONPATH": str(_IMPORT_ROOT),
        "PATH": os.environ.get("PATH", os.defpath),  # where text recognition is looked for
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",
    }


class ExtractionProcess:
    """Implements indexing.Extraction."""

    def __init__(self, memory_bytes: int, cpu_s: int, wall_s: float) -> None:
        """What reading one file may cost: address space, processor time, time on the clock."""
        self._command = (sys.executable, "-m", _PROGRAM, str(memory_bytes), str(cpu_s), str(wall_s))
        self._wall_s = wall_s

    async def probe(self) -> None:
        """Raise unless files can be read in safety here."""
        libseccomp()

    @asynccontextmanager
    async def read(self, content: AsyncIterator[bytes]) -> AsyncIterator[Extracted]:
        # Files without a name: nothing of a document stays on the disk, however this process ends.
        with (
            tempfile.TemporaryFile() as original,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as log,
        ):
            async for part in content:
                await asyncio.to_thread(original.write, part)
            original.seek(0)
            with tempfile.TemporaryDirectory(prefix="parley-extract-") as folder:
                status = await self._run(folder, original, output, log)
            output.seek(0)
            log.seek(0)
            yield _extracted(status, output, log)

    async def _run(self, folder: str, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        child = await asyncio.create_subprocess_exec(
            *self._command, cwd=folder, env=environment(), stdin=stdin, stdout=stdout, stderr=stderr
        )
        try:
            async with asyncio.timeout(self._wall_s):
                return await child.wait()
        except TimeoutError:
            return -signal.SIGALRM
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()


def _extracted(status: int, lines: IO[bytes], log: IO[bytes]) -> Extracted:
    """Raises Unreadable; RuntimeError if the program itself can't run."""
    if said := log.read(_LOGGED_BYTES).decode(errors="replace"):
        _log.warning("reading a file went wrong", extra={"facts": {"status": status, "said": said}})
    if status == _OUT_OF_MEMORY or -status in _LIMIT_SIGNALS or (-status == signal.SIGABRT and _RUST_MEMORY in said):
        message = "Reading the file took more time or memory than allowed: split it, or make it simpler."
        raise Unreadable(Reason.EXTRACTION_LIMIT, message)
    if status < 0:
        message = "The file can't be read: it is damaged. Save it again and upload it."
        raise Unreadable(Reason.DOCUMENT_CORRUPT, message)
    if status > 0:
        raise RuntimeError(f"{_PROGRAM} ended with status {status}")
    header = json.loads(lines.readline())
    if "reason" in header:
        raise Unreadable(Reason(header["reason"]), header["message"])
    return Extracted(header["content_type"], header["pages"], header["passages"], _passages(lines))


def _passages(lines: IO[bytes]) -> Iterator[Passage]:
    for position, line in enumerate(lines):
        text, page, headings = json.loads(line)
        yield Passage(position, text, page, tuple(headings))
