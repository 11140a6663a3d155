"""Following a crawl."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from uuid import UUID

from services.knowledge.crawl.crawl import Crawl, Crawls, get
from services.knowledge.document import Member
from services.knowledge.watch import Changes
from services.shared.errors import Reason, Unauthenticated

_APART_S = 0.3
"""Between two looks at a crawl of which each page is a change."""


class CrawlWatch:
    """Watches crawls."""

    def __init__(self, crawls: Crawls, changes: Changes, clock_s: Callable[[], float] = time.time) -> None:
        self._crawls = crawls
        self._changes = changes
        self._clock_s = clock_s

    async def __call__(self, member: Member, crawl_id: UUID, expires_at_s: float) -> AsyncIterator[Crawl]:
        """The crawl now and as it goes on, until it has ended.

        Raises NotFound, also when the crawl is deleted meanwhile, and Unauthenticated at `expires_at_s` (Unix time).
        """
        seen: Crawl | None = None
        with self._changes.watch(str(crawl_id)) as changed:
            while True:
                changed.clear()
                crawl = await get(self._crawls, member, crawl_id)
                if crawl != seen:
                    yield crawl
                if crawl.state.is_final:
                    return
                seen = crawl
                try:
                    await asyncio.wait_for(changed.wait(), expires_at_s - self._clock_s())
                except TimeoutError as error:
                    message = "The access token has expired: refresh it and watch again."
                    raise Unauthenticated(Reason.TOKEN_EXPIRED, message) from error
                await asyncio.sleep(_APART_S)
