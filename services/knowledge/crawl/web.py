"""The web, asked through the guard of services/shared/outbound: an answer is read whole into a file without a name."""

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
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
_MEDIUM = re.compile(
    r"\s*(image/(?!svg)|audio/|video/|font/|text/css|(text|application)/(x-)?javascript)", re.IGNORECASE
)


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
        # Unbuffered: the process that reads its links moves the file's place.
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, buffering=0) as content:
            digest, size_bytes = hashlib.sha256(), 0
            try:
                asked = self._outbound.request("GET", url, headers, within_s=within_s, redirects=redirects)
                async with asked as answer:
                    is_medium = _MEDIUM.match("".join(answer.values("content-type")[:1])) is not None
                    if answer.status == 200 and not is_medium:
                        async for piece in answer.body(most_bytes):
                            size_bytes += len(piece)
                            digest.update(piece)
                            await asyncio.to_thread(content.write, piece)
            except Invalid as error:
                raise NotFetched(error.reason, error.message) from error
            except Unreachable as error:
                raise NotFetched(Reason.PAGE_NOT_REACHABLE, str(error), size_bytes) from error
            except TooLarge as error:
                message = f"It is larger than the {_shown(most_bytes)} that may be fetched of it."
                raise NotFetched(Reason.PAGE_TOO_LARGE, message, size_bytes) from error
            content.rollover()
            yield Fetched(
                status=answer.status,
                validators=Validators(_valid(answer, "etag"), _valid(answer, "last-modified"), digest.hexdigest()),
                redirect=answer.redirect,
                robots=answer.values("x-robots-tag"),
                content=content,
                size_bytes=size_bytes,
                is_medium=is_medium,
                retry_after_s=_seconds(answer.values("retry-after")),
            )


def _valid(answer: Answer, name: str) -> str:
    """A validator such as can be sent back, else nothing."""
    value = ", ".join(answer.values(name))
    return value if len(value) <= _MOST_VALIDATOR_CHARACTERS and value.isascii() and value.isprintable() else ""


def _seconds(values: Sequence[str]) -> float:
    """Of Retry-After in its usual form; a date is not worth reading."""
    return float(values[0]) if values and values[0].isascii() and values[0].isdecimal() else 0.0


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB" if size_bytes >= 2**20 else f"{size_bytes} bytes"
