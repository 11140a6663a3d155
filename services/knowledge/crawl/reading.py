"""Finding the links of pages and sitemaps in a process of its own (links.py), which a hostile page may break."""

import asyncio
import json
import logging
import sys
import tempfile
from collections.abc import Collection
from typing import IO

from services.knowledge import child
from services.knowledge.crawl.fetched import Content, Links
from services.knowledge.crawl.robots import directives
from services.shared.outbound.url import Url, parse

_log = logging.getLogger("parley.knowledge")
_PROGRAM = "services.knowledge.crawl.links"
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
            status = await child.run(command, self._wall_s, content, output, log)
            output.seek(0)
            log.seek(0)
            if status:
                said = log.read(_LOGGED_BYTES).decode(errors="replace")
                _log.warning("links were not read", extra={"facts": {"status": status, "said": said}})
                return Links()
            return await asyncio.to_thread(_links, output)


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
