"""Finding the links of pages and sitemaps in a process of its own (links.py), which a hostile page may break.

The child gets the page as its input and a file for its output, no variable of our environment, and an empty folder to
stand in. It limits itself; here it is given a time on the clock.
"""

import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from services.knowledge.crawl.fetched import Content, Links
from services.knowledge.crawl.robots import directives
from services.shared.outbound.url import Url, parse

_log = logging.getLogger("parley.knowledge")
_PROGRAM = "services.knowledge.crawl.links"
_IMPORT_ROOT = Path(__file__).parents[3]
_LOGGED_BYTES = 2000


class LinkProcess:
    """Implements fetched.LinkReading."""

    def __init__(self, memory_bytes: int, cpu_s: int, wall_s: float) -> None:
        """What reading one page may cost: address space, processor time, time on the clock."""
        self._limits = (str(memory_bytes), str(cpu_s), str(wall_s))
        self._wall_s = wall_s

    async def read(self, content: IO[bytes], url: Url, sites: Collection[str], most: int) -> Links:
        """A page that breaks the reader, or is too much for it, has no links."""
        command = (sys.executable, "-m", _PROGRAM, *self._limits, str(url), " ".join(sites), str(most))
        content.seek(0)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
            status = await self._run(command, content, output, log)
            output.seek(0)
            log.seek(0)
            if status:
                said = log.read(_LOGGED_BYTES).decode(errors="replace")
                _log.warning("links were not read", extra={"facts": {"status": status, "said": said}})
                return Links()
            return await asyncio.to_thread(_links, output)

    async def _run(self, command: Sequence[str], stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        environment = {"PYTHONPATH": str(_IMPORT_ROOT), "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
        with tempfile.TemporaryDirectory(prefix="parley-links-") as folder:
            child = await asyncio.create_subprocess_exec(
                *command, cwd=folder, env=environment, stdin=stdin, stdout=stdout, stderr=stderr
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


def _links(output: IO[bytes]) -> Links:
    found = json.load(output)
    return Links(
        content=Content(found["kind"]),
        title=found.get("title", ""),
        canonical=parse(found["canonical"]) if found.get("canonical") else None,
        pages=tuple(map(parse, found.get("pages", ()))),
        sitemaps=tuple(map(parse, found.get("sitemaps", ()))),
        directives=directives(found.get("robots", ())),
    )
