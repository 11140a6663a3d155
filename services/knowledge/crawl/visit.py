"""Visiting one page of a crawl: ask for it, find what it leads to, make it a document, write down how it ended.

A page may be visited twice, after a crash or by two processes: its document's request id follows from address and
content, and only the first end of a visit counts. A page that changed keeps its old document until the new one can be
found (settle.py). An address that leads to another one, by a redirect or as rel=canonical, is no page of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import IO, Protocol
from uuid import UUID, uuid5

from services.knowledge.crawl.crawl import Crawl, Kind, Page, PageState, Validators
from services.knowledge.crawl.fetched import Content, Fetched, LinkReading, Links, NotFetched, Web
from services.knowledge.crawl.naming import filename
from services.knowledge.crawl.pace import Pace
from services.knowledge.crawl.robots import Robots, directives
from services.knowledge.document import MAX_FAILURE_CHARACTERS, Document, Failure, File, Member
from services.knowledge.upload import MAX_BYTES
from services.shared.errors import AlreadyExists, Exhausted, Invalid, Reason
from services.shared.outbound.url import Url, join

PAGE_WITHIN_S = 30.0
_MOST_HOPS = 5
_GONE, _BUSY, _FOR_A_WHILE = (404, 410), (429, 503), (302, 303, 307)
_CHUNK_BYTES = 256 * 1024


class Reception(Protocol):
    async def receive(self, member: Member, file: File, chunks: AsyncIterator[bytes]) -> Document: ...


class Documents(Protocol):
    async def find(self, tenant_id: UUID, document_id: UUID) -> Document | None: ...

    async def delete(self, member: Member, document: Document) -> bool: ...


@dataclass(frozen=True)
class Outcome:
    """How a visit ended."""

    state: PageState
    reason: Reason | None = None
    message: str = ""
    next_document_id: UUID | None = None
    validators: Validators = field(default_factory=Validators)
    size_bytes: int = 0
    keeps_document: bool = False
    """Whether the document of an earlier visit still stands for the page."""
    is_gone: bool = False
    may_pass: bool = False
    """Whether the page is worth another try."""


class Pages(Protocol):
    """The record of a crawl's pages, as far as visits change it."""

    async def add_pages(self, crawl: Crawl, urls: Sequence[Url], kind: Kind, depth: int, hops: int) -> None:
        """Those that are not known yet, as many as the crawl's limit leaves room for."""

    async def find_page(self, crawl: Crawl, url: Url) -> Page | None: ...

    async def adopt(self, crawl: Crawl, site: str) -> None:
        """Let the crawl read this site, too."""

    async def finish_page(self, crawl: Crawl, page: Page, outcome: Outcome) -> bool:
        """Write how the visit of a waiting page ended; False if it waits no more. One that may pass waits on, unless it
        was tried often enough."""


class Settle(Protocol):
    async def settle(self, tenant_id: UUID, document_id: UUID) -> None:
        """Let the page know how its new document has ended, if it has."""


@dataclass
class Run:
    """One process working on a crawl."""

    crawl: Crawl
    left_bytes: int
    within_s: float
    sites: set[str]
    decides: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of two pages that each say they are the other one, one must come first."""
    failure: Failure | None = None
    """What makes going on useless."""


class Visits:
    """Visits pages."""

    def __init__(
        self, pages: Pages, documents: Documents, reception: Reception, web: Web, links: LinkReading, pace: Pace,
        settling: Settle,
    ) -> None:  # fmt: skip
        self._pages = pages
        self._documents = documents
        self._reception = reception
        self._web = web
        self._links = links
        self._pace = pace
        self._settling = settling

    async def visit(self, run: Run, page: Page, robots: Robots | NotFetched) -> None:
        """Raises Unavailable, to be tried again."""
        if isinstance(robots, NotFetched):
            return await self._finish(run, page, _failed(robots))
        if not robots.allow(page.url):
            message = "The site's robots.txt asks robots not to read it."
            return await self._finish(run, page, Outcome(PageState.SKIPPED, Reason.ROBOTS_DISALLOWED, message))
        known = page.validators if await self._find(run.crawl, page.document_id) else Validators()
        async with AsyncExitStack() as opened:
            try:
                async with self._pace.turn(page.url.authority, robots.delay_s):
                    most_bytes = min(MAX_BYTES, run.left_bytes)
                    get = self._web.get(page.url, known, most_bytes, min(PAGE_WITHIN_S, run.within_s))
                    fetched = await opened.enter_async_context(get)
            except NotFetched as error:
                run.left_bytes -= error.size_bytes
                may_pass = error.failure.reason is Reason.PAGE_NOT_REACHABLE
                return await self._finish(run, page, replace(_failed(error), may_pass=may_pass))
            if fetched.status in _BUSY:
                self._pace.hold(page.url.authority, fetched.retry_after_s)
            run.left_bytes -= fetched.size_bytes
            links = await self._read_links(run, page, fetched)
            async with run.decides:
                await self._finish(run, page, await self._outcome(run, page, known, fetched, links))
        return None

    async def _read_links(self, run: Run, page: Page, fetched: Fetched) -> Links:
        fetched.content.seek(0)
        begin = fetched.content.read(1024).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")
        if fetched.status == 200 and begin.startswith((b"<", b"\x1f\x8b")):
            return await self._links.read(fetched.content, page.url, run.sites, run.crawl.wish.limits.pages)
        return Links()

    async def _outcome(self, run: Run, page: Page, known: Validators, fetched: Fetched, links: Links) -> Outcome:
        if fetched.status == 304 and known != Validators():
            return Outcome(PageState.UNCHANGED, validators=known, keeps_document=True)
        if fetched.redirect:
            return await self._redirected(run, page, fetched.redirect, fetched.status)
        if fetched.status != 200:
            return _refused(fetched.status)
        if fetched.is_medium:
            message = "A picture, sound, film or the like: of a site, text is read."
            return Outcome(PageState.SKIPPED, Reason.UNSUPPORTED_FORMAT, message)
        if links.content is Content.SITEMAP:
            return await self._listed(run, page, links, fetched)
        if page.kind is Kind.SITEMAP:
            return Outcome(PageState.SKIPPED, message="It is no sitemap.", size_bytes=fetched.size_bytes)
        if links.canonical and (elsewhere := await self._canonical(run, page, links.canonical, fetched)):
            return elsewhere
        asked = links.directives | directives(fetched.robots)
        if page.depth < run.crawl.wish.limits.depth and not asked.nofollow:
            await self._pages.add_pages(run.crawl, links.pages, Kind.PAGE, page.depth + 1, 0)
        if asked.noindex:
            message = "The page asks robots not to keep it."
            return Outcome(PageState.SKIPPED, Reason.PAGE_NOT_INDEXABLE, message, size_bytes=fetched.size_bytes)
        return await self._received(run, page, known, fetched, links.title)

    async def _redirected(self, run: Run, page: Page, location: str, status: int) -> Outcome:
        try:
            target = join(page.url, location)
        except Invalid as error:
            return Outcome(PageState.FAILED, error.reason, f"It leads elsewhere. {error.message}")
        if page.hops >= _MOST_HOPS or target == page.url:
            message = "It leads from one address to the next without an end."
            return Outcome(PageState.FAILED, Reason.PAGE_NOT_REACHABLE, message)
        if target.site not in run.sites:
            if page.kind is not Kind.START:
                # For a while only, such as to a sign-in: what is known of the page still stands.
                kept, message = status in _FOR_A_WHILE, f"It leads to another site: {target}"
                return Outcome(PageState.SKIPPED, message=message, keeps_document=kept)
            await self._pages.adopt(run.crawl, target.site)
            run.sites.add(target.site)
        await self._pages.add_pages(run.crawl, [target], page.kind, page.depth, page.hops + 1)
        return Outcome(PageState.SKIPPED, message=f"It leads to {target}")

    async def _listed(self, run: Run, page: Page, links: Links, fetched: Fetched) -> Outcome:
        if page.kind is not Kind.PAGE and page.hops <= _MOST_HOPS:
            await self._pages.add_pages(run.crawl, links.pages, Kind.PAGE, page.depth, 0)
            await self._pages.add_pages(run.crawl, links.sitemaps, Kind.SITEMAP, page.depth, page.hops + 1)
        message = f"A sitemap: {len(links.pages) + len(links.sitemaps)} addresses of this site."
        return Outcome(PageState.SKIPPED, message=message, size_bytes=fetched.size_bytes)

    async def _canonical(self, run: Run, page: Page, canonical: Url, fetched: Fetched) -> Outcome | None:
        """None if the page stands for itself: also when the other one turned out to be none."""
        if canonical == page.url or canonical.site not in run.sites:
            return None
        other = await self._pages.find_page(run.crawl, canonical)
        if other is None:
            await self._pages.add_pages(run.crawl, [canonical], Kind.PAGE, page.depth, 0)
            if await self._pages.find_page(run.crawl, canonical) is None:  # the limit of pages is reached
                return None
        elif other.state in (PageState.SKIPPED, PageState.FAILED):
            return None
        return Outcome(PageState.SKIPPED, message=f"The same page as {canonical}", size_bytes=fetched.size_bytes)

    async def _received(self, run: Run, page: Page, known: Validators, fetched: Fetched, title: str) -> Outcome:
        crawl, validators, size_bytes = run.crawl, fetched.validators, fetched.size_bytes
        unchanged = Outcome(PageState.UNCHANGED, validators=validators, size_bytes=size_bytes, keeps_document=True)
        if size_bytes == 0:
            return Outcome(PageState.FAILED, Reason.DOCUMENT_EMPTY, "The page is empty.")
        if known.sha256 == validators.sha256:
            return unchanged
        file = File(
            request_id=uuid5(crawl.id, f"{page.url} {validators.sha256}"),
            filename=filename(page.url, title),
            size_bytes=size_bytes,
            sha256=validators.sha256,
            collection=crawl.wish.collection,
            visibility=crawl.wish.visibility,
            source_url=str(page.url),
        )
        try:
            document = await self._reception.receive(crawl.maker, file, _chunks(fetched.content))
        except AlreadyExists as error:
            if error.facts.get("document_id") == str(page.document_id):
                return unchanged
            message = "A document of the same content is there already."
            return Outcome(PageState.SKIPPED, error.reason, message, size_bytes=size_bytes)
        except Invalid as error:
            return Outcome(PageState.FAILED, error.reason, error.message, keeps_document=True)
        except Exhausted as error:
            run.failure = Failure(error.reason, error.message[:MAX_FAILURE_CHARACTERS])
            return Outcome(PageState.FAILED, error.reason, error.message, size_bytes=size_bytes, keeps_document=True)
        if document.id == page.document_id:
            return unchanged
        return Outcome(
            PageState.INDEXING,
            next_document_id=document.id,
            validators=validators,
            size_bytes=size_bytes,
            keeps_document=True,
        )

    async def _finish(self, run: Run, page: Page, outcome: Outcome) -> None:
        crawl, outcome = run.crawl, replace(outcome, message=outcome.message[:MAX_FAILURE_CHARACTERS])
        if not outcome.keeps_document and (old := await self._find(crawl, page.document_id)):
            await self._documents.delete(crawl.maker, old)
        finished = await self._pages.finish_page(crawl, page, outcome)
        if new := outcome.next_document_id:
            if finished:
                # Its indexing may have ended before the page was known to wait for it.
                await self._settling.settle(crawl.tenant_id, new)
            else:
                await self._take_back(crawl, page, new)

    async def _take_back(self, crawl: Crawl, page: Page, document_id: UUID) -> None:
        """Delete a document that no page stands for: the crawl was deleted, or another visit came first."""
        now = await self._pages.find_page(crawl, page.url)
        if now and document_id in (now.document_id, now.next_document_id):
            return
        if document := await self._find(crawl, document_id):
            await self._documents.delete(crawl.maker, document)

    async def _find(self, crawl: Crawl, document_id: UUID | None) -> Document | None:
        return await self._documents.find(crawl.tenant_id, document_id) if document_id else None


def _failed(error: NotFetched) -> Outcome:
    failure = error.failure
    return Outcome(PageState.FAILED, failure.reason, failure.message, size_bytes=error.size_bytes, keeps_document=True)


def _refused(status: int) -> Outcome:
    if status in _GONE:
        message = f"The page is not there ({status})."
        return Outcome(PageState.FAILED, Reason.PAGE_NOT_REACHABLE, message, is_gone=True)
    message = {
        401: "The page wants a sign-in (401).",
        403: "The site does not let it be read (403).",
        429: "The site says that it is asked too often (429).",
    }.get(status, f"The server answered {status} instead of the page.")
    may_pass = status in _BUSY or status >= 500
    return Outcome(PageState.FAILED, Reason.PAGE_NOT_REACHABLE, message, keeps_document=True, may_pass=may_pass)


async def _chunks(content: IO[bytes]) -> AsyncIterator[bytes]:
    content.seek(0)
    while chunk := await asyncio.to_thread(content.read, _CHUNK_BYTES):
        yield chunk
