"""What comes from a site: an answer to a request for a page, and what stands in it for a crawl."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Protocol

from services.knowledge.crawl.crawl import Validators
from services.knowledge.crawl.robots import Directives
from services.knowledge.document import MAX_FAILURE_CHARACTERS, Failure
from services.shared.errors import Reason
from services.shared.outbound.url import Url


class NotFetched(Exception):
    """A page can't be had; `failure` says why. `size_bytes` had come of it."""

    def __init__(self, reason: Reason, message: str, size_bytes: int = 0) -> None:
        super().__init__(message)
        self.failure = Failure(reason, message[:MAX_FAILURE_CHARACTERS])
        self.size_bytes = size_bytes


@dataclass(frozen=True)
class Fetched:
    """What a server answered. Only an answer of 200 has content, and a medium without text has not."""

    status: int
    validators: Validators
    redirect: str | None
    robots: Sequence[str]
    """The values of X-Robots-Tag."""
    content: IO[bytes]
    size_bytes: int
    is_medium: bool = False
    """Pictures, sound, film, fonts, styles and programs."""
    retry_after_s: float = 0.0
    """How long the server asks to be left alone."""


class Web(Protocol):
    """Asks servers."""

    def get(
        self, url: Url, known: Validators, most_bytes: int, within_s: float, redirects: int = 0
    ) -> AbstractAsyncContextManager[Fetched]:
        """The answer, read whole; 304 if the page is as `known`. Raises NotFetched."""


class Content(StrEnum):
    """What was fetched, as far as links go."""

    PAGE = "page"
    SITEMAP = "sitemap"
    OTHER = "other"


@dataclass(frozen=True)
class Links:
    """What a page leads to, and what it asks of robots."""

    content: Content = Content.OTHER
    title: str = ""
    canonical: Url | None = None
    pages: Sequence[Url] = ()
    sitemaps: Sequence[Url] = ()
    directives: Directives = field(default_factory=Directives)


class LinkReading(Protocol):
    async def read(self, content: IO[bytes], url: Url, sites: Collection[str], most: int) -> Links:
        """What stands in the content that was fetched from `url`; of links, those to `sites`."""
