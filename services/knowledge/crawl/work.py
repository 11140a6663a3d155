"""Working on a crawl, a slice at a time, so that a large one does not hold up those of others.

A slice is asked for by an event; the record knows which slice is due, so that an event that comes twice or late does
nothing. All that is known of a crawl is in the record: whoever takes the next slice goes on with the pages that wait.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from services.knowledge.crawl import robots
from services.knowledge.crawl.crawl import Crawl, Kind, Limit, Page, PageState, Validators
from services.knowledge.crawl.fetched import NotFetched, Web
from services.knowledge.crawl.pace import AT_ONCE
from services.knowledge.crawl.robots import Robots
from services.knowledge.crawl.visit import Outcome, Pages, Run, Visits
from services.knowledge.document import Failure
from services.shared.errors import Invalid, Reason, Unavailable
from services.shared.outbound.url import Url, join, parse

SLICE_S = 20.0
_ROBOTS_WITHIN_S = 15.0
_ROBOTS_REDIRECTS = 5
_STUMBLED = "Reading the page failed for a reason that is not in the site."
_log = logging.getLogger("parley.knowledge")
_INTERRUPTED = "The crawl failed several times for a reason that is not in the site. Start it again later."


class WorkedCrawls(Pages, Protocol):
    """The record of crawls, as far as work changes them."""

    async def begin_slice(self, tenant_id: UUID, crawl_id: UUID, slice_: int) -> Crawl | None:
        """The crawl, RUNNING; None if another slice is due, or none."""

    async def waiting(self, crawl: Crawl, limit: int) -> Sequence[Page]:
        """The next pages, nearest to the start first; none when the crawl runs no more."""

    async def next_slice(self, crawl: Crawl) -> None:
        """Ask for the slice after this one."""

    async def end(self, crawl: Crawl, limit: Limit, failure: Failure | None) -> None:
        """RUNNING -> INDEXING, or FAILED if `failure` or if not one page could be read. Pages that wait are skipped."""

    async def complete(self, crawl: Crawl) -> None:
        """INDEXING -> DONE, once no page is being indexed."""


class Crawling:
    """Works on crawls."""

    def __init__(
        self, crawls: WorkedCrawls, visits: Visits, web: Web, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._crawls = crawls
        self._visits = visits
        self._web = web
        self._clock_s = clock_s

    async def work(self, tenant_id: UUID, crawl_id: UUID, slice_: int) -> None:
        """Do one slice. Raises when it should be tried again."""
        crawl = await self._crawls.begin_slice(tenant_id, crawl_id, slice_)
        if crawl:
            await self._work(crawl)

    async def _work(self, crawl: Crawl) -> None:
        limits, rules = crawl.wish.limits, dict[str, Robots | NotFetched]()
        run = Run(crawl, limits.size_bytes - crawl.size_bytes, 0.0, set(crawl.sites))
        until_s = self._clock_s() + SLICE_S
        while True:
            run.within_s = limits.seconds - _age_s(crawl)
            limit = Limit.SECONDS if run.within_s <= 0 else Limit.BYTES if run.left_bytes <= 0 else Limit.NONE
            if limit or run.failure:
                break
            if self._clock_s() >= until_s:
                await self._crawls.next_slice(crawl)
                return
            if not (pages := await self._crawls.waiting(crawl, AT_ONCE)):
                break
            for page in pages:
                if page.url.origin not in rules:
                    rules[page.url.origin] = await self._rules(run, page.url)
            async with asyncio.TaskGroup() as visiting:
                for page in pages:
                    visiting.create_task(self._visit(run, page, rules[page.url.origin]))
        await self._crawls.end(crawl, limit, run.failure)
        await self._crawls.complete(crawl)

    async def give_up(self, tenant_id: UUID, crawl_id: UUID, slice_: int) -> None:
        """End a crawl whose work failed too often."""
        if crawl := await self._crawls.begin_slice(tenant_id, crawl_id, slice_):
            await self._crawls.end(crawl, Limit.NONE, Failure(Reason.INDEXING_FAILED, _INTERRUPTED))

    async def _visit(self, run: Run, page: Page, rules: Robots | NotFetched) -> None:
        """One page that we stumble over is the end of that page, not of the crawl."""
        try:
            await self._visits.visit(run, page, rules)
        except Unavailable:
            raise
        except Exception:
            _log.exception("a page went wrong", extra={"facts": {"crawl": run.crawl.id, "url": str(page.url)}})
            outcome = Outcome(PageState.FAILED, Reason.INDEXING_FAILED, _STUMBLED, keeps_document=True)
            await self._crawls.finish_page(run.crawl, page, outcome)

    async def _rules(self, run: Run, url: Url) -> Robots | NotFetched:
        """The robots.txt of the site: without one all is allowed, without an answer nothing (RFC 9309)."""
        where = parse(f"{url.origin}/robots.txt")
        try:
            async with self._web.get(
                where, Validators(), robots.MAX_BYTES, _ROBOTS_WITHIN_S, _ROBOTS_REDIRECTS
            ) as fetched:
                if fetched.status >= 500:
                    message = f"The site's robots.txt can't be read: the server answered {fetched.status}."
                    return NotFetched(Reason.PAGE_NOT_REACHABLE, message)
                fetched.content.seek(0)
                text = fetched.content.read().decode("utf-8-sig", "replace") if fetched.status == 200 else ""
        except NotFetched as error:
            return error
        rules = await asyncio.to_thread(Robots, text)
        if run.crawl.wish.limits.depth:
            await self._crawls.add_pages(run.crawl, _sitemaps(rules, where, run.sites), Kind.SITEMAP, 1, 0)
        return rules


def _sitemaps(rules: Robots, where: Url, sites: set[str]) -> list[Url]:
    found = []
    for line in rules.sitemaps:
        try:
            sitemap = join(where, line)
        except Invalid:
            continue
        if sitemap.site in sites:
            found.append(sitemap)
    return found


def _age_s(crawl: Crawl) -> float:
    assert crawl.start_time
    return (datetime.now(UTC) - crawl.start_time).total_seconds()
