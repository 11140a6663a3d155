"""`parley ingest URL`: reads a site, follows the crawl and says which pages failed and why."""

import uuid
from dataclasses import dataclass

from grpclib.exceptions import GRPCError
from rich.progress import Progress, SpinnerColumn, TextColumn

from parley_sdk.parley.knowledge.v1 import (
    Crawl,
    CrawlCounts,
    CrawlLimit,
    CrawlLimits,
    CrawlPage,
    CrawlPageState,
    CrawlServiceStub,
    CrawlState,
    CreateCrawlRequest,
    ListCrawlPagesRequest,
    ListCrawlsRequest,
    StartCrawlRequest,
    Visibility,
    WatchCrawlRequest,
)
from services.shared.errors import Invalid
from services.shared.outbound.url import parse
from stack.client.account import signed_in
from stack.client.edge import Edge, console, reason_of

_WATCH_TIMEOUT_S = 22_000.0  # longer than a crawl may take
_SHOWN_FAILURES = 50
_LIMITS = {
    CrawlLimit.PAGES: "the site has more pages: --pages says how many to read",
    CrawlLimit.BYTES: "it ended at the most bytes that a crawl may fetch",
    CrawlLimit.SECONDS: "it ended at the longest time that a crawl may take",
}


@dataclass(frozen=True)
class Site:
    """What to read, and where its pages go; a depth of None and 0 pages leave it to the service."""

    url: str
    collection: str = ""
    is_private: bool = False
    depth: int | None = None
    pages: int = 0

    @property
    def visibility(self) -> Visibility:
        return Visibility.PRIVATE if self.is_private else Visibility.ORGANISATION

    @property
    def limits(self) -> CrawlLimits:
        return CrawlLimits(max_depth=self.depth, max_pages=self.pages)


async def crawl(edge: Edge, site: Site) -> int:
    """Read a site; 1 when it or one of its pages failed."""
    async with signed_in(edge) as (channel, metadata):
        service = CrawlServiceStub(channel, metadata=metadata)
        try:
            ended = await _followed(service, await _started(service, site))
            failed = await _failed(service, ended)
        except GRPCError as error:
            _complain(f"{site.url}: {error.message} ({reason_of(error) or error.status.name})")
            return 1
    console.print(f"{ended.url}: {_summary(ended)}", highlight=False, markup=False, soft_wrap=True)
    for page in failed:
        _complain(f"{page.url}: {page.message} ({page.reason.name})")
    if ended.failure and not failed:
        _complain(f"{ended.url}: {ended.failure.message} ({ended.failure.reason.name})")
    return 1 if failed or ended.failure else 0


async def _started(service: CrawlServiceStub, site: Site) -> Crawl:
    """A new crawl, or the one that has read this site to this place before: it knows what did not change."""
    known = (await service.list_crawls(ListCrawlsRequest(page_size=100))).crawls
    place = (_normal(site.url), site.collection, site.visibility)
    before = next((crawl for crawl in known if (crawl.url, crawl.collection, crawl.visibility) == place), None)
    if before is None:
        return await _created(service, site)
    try:
        said = site.depth is not None or site.pages
        await service.start_crawl(StartCrawlRequest(crawl_id=before.id, limits=site.limits if said else None))
    except GRPCError as error:
        if reason_of(error) == "CRAWL_NOT_YOURS":
            return await _created(service, site)
        if reason_of(error) != "CRAWL_RUNNING":
            raise
    return before


async def _created(service: CrawlServiceStub, site: Site) -> Crawl:
    request = CreateCrawlRequest(
        request_id=str(uuid.uuid4()),
        url=site.url,
        limits=site.limits,
        collection=site.collection,
        visibility=site.visibility,
    )
    created = (await service.create_crawl(request)).crawl
    assert created
    return created


def _normal(url: str) -> str:
    """As the service spells it; one that it will refuse stays as it is."""
    try:
        return str(parse(url))
    except Invalid:
        return url


async def _followed(service: CrawlServiceStub, crawl: Crawl) -> Crawl:
    """The crawl when it has ended, shown on the way there."""
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True) as progress:
        line = progress.add_task("waiting", total=None)
        request = WatchCrawlRequest(crawl_id=crawl.id)
        async for response in service.watch_crawl(request, timeout=_WATCH_TIMEOUT_S):
            assert response.crawl
            crawl = response.crawl
            progress.update(line, description=_step(crawl))
    return crawl


async def _failed(service: CrawlServiceStub, crawl: Crawl) -> list[CrawlPage]:
    request = ListCrawlPagesRequest(crawl_id=crawl.id, page_size=_SHOWN_FAILURES, state=CrawlPageState.FAILED)
    return (await service.list_crawl_pages(request)).pages


def _step(crawl: Crawl) -> str:
    counts = crawl.counts or CrawlCounts()
    if crawl.state is CrawlState.QUEUED:
        return "waiting"
    return f"{_done(counts)} of {_done(counts) + counts.waiting + counts.indexing} pages, {counts.failed} failed"


def _done(counts: CrawlCounts) -> int:
    return counts.indexed + counts.unchanged + counts.skipped + counts.failed


def _summary(crawl: Crawl) -> str:
    counts = crawl.counts or CrawlCounts()
    said = [f"{counts.indexed + counts.unchanged} pages ready"]
    said += [f"{counts.skipped} skipped"] if counts.skipped else []
    said += [f"{counts.failed} failed"] if counts.failed else []
    said += [_LIMITS[crawl.limit_reached]] if crawl.limit_reached in _LIMITS else []
    return ", ".join(said)


def _complain(text: str) -> None:
    console.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
