"""The web, asked through the guard of services/shared/outbound: an answer is read whole into a file without a name."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.knowledge.crawl.crawl import Validators
from services.knowledge.crawl.fetched import Fetched, NotFetched
from services.knowledge.crawl.robots import AGENT
from services.shared.errors import Invalid, Reason
from services.shared.outbound.client import Answer, Outbound, TooLarge, Unreachable
from services.shared.outbound.url import Url

USER_AGENT = f"{AGENT}/1.0 (reads pages for an organisation's own assistant; asks robots.txt first)"
_ACCEPT = "text/html,application/xhtml+xml,application/pdf;q=0.9,*/*;q=0.8"
_IN_MEMORY_BYTES = 1024 * 1024
_MOST_VALIDATOR_CHARACTERS = 500


class GuardedWeb:
    """Implements fetched.Web."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    @asynccontextmanager
    async def get(
        self, url: Url, known: Validators, most_bytes: int, within_s: float, redirects: int = 0
    ) -> AsyncIterator[Fetched]:
        headers = {"User-Agent": USER_AGENT, "Accept": _ACCEPT}
        if known.etag:
            headers["If-None-Match"] = known.etag
        if known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as content:
            digest, size_bytes = hashlib.sha256(), 0
            try:
                asked = self._outbound.request("GET", url, headers, within_s=within_s, redirects=redirects)
                async with asked as answer:
                    if answer.status == 200:
                        async for piece in answer.body(most_bytes):
                            size_bytes += len(piece)
                            digest.update(piece)
                            await asyncio.to_thread(content.write, piece)
            except Invalid as error:
                raise NotFetched(error.reason, error.message) from error
            except Unreachable as error:
                raise NotFetched(Reason.PAGE_NOT_REACHABLE, str(error)) from error
            except TooLarge as error:
                message = f"It is larger than the {_shown(most_bytes)} that may be fetched of it."
                raise NotFetched(Reason.PAGE_TOO_LARGE, message) from error
            # To a file, for the process that reads its links.
            content.rollover()
            yield Fetched(answer.status, _kept(answer), answer.redirect, content, size_bytes, digest.hexdigest())


def _kept(answer: Answer) -> dict[str, str]:
    """The headers; validators only such as can be sent back."""
    headers = dict(answer.headers)
    for name in ("etag", "last-modified"):
        value = headers.get(name, "")
        if len(value) > _MOST_VALIDATOR_CHARACTERS or not (value.isascii() and value.isprintable()):
            del headers[name]
    return headers


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB" if size_bytes >= 2**20 else f"{size_bytes} bytes"
