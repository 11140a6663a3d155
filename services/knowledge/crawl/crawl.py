"""A crawl: a site that is read page by page, each page a document. Run again, it keeps what did not change.

It is seen like its documents: by the organisation, or by its maker alone. Its maker, and admins and owners who see it,
may start, stop and delete it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid4

from services.knowledge.document import Documents, Failure, Member, Visibility
from services.shared.errors import AlreadyExists, Exhausted, Forbidden, NotFound, Reason, WrongState
from services.shared.outbound.url import Url

MAX_UNFINISHED, MAX_CRAWLS = 5, 1000
"""Of one organisation: crawls that wait or fetch, and crawls in all."""
_MAY_CHANGE_ANY = ("owner", "admin")
_DELETED_AT_ONCE = 100


class CrawlState(StrEnum):
    """QUEUED -> RUNNING -> INDEXING -> DONE, or STOPPED, or FAILED; and QUEUED again."""

    QUEUED = "queued"
    RUNNING = "running"
    INDEXING = "indexing"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (CrawlState.DONE, CrawlState.STOPPED, CrawlState.FAILED)


class Limit(StrEnum):
    """What ended a crawl before it had seen all pages."""

    NONE = ""
    PAGES = "pages"
    BYTES = "bytes"
    SECONDS = "seconds"


@dataclass(frozen=True)
class Limits:
    """How far a crawl goes; see CrawlLimits of the contract."""

    depth: int = 3
    pages: int = 200
    size_bytes: int = 256 * 2**20
    seconds: int = 1800


@dataclass(frozen=True)
class Wish:
    """What a member asks for."""

    request_id: UUID
    url: Url
    limits: Limits = field(default=Limits(), compare=False)
    """A later start may change them."""
    collection: str = ""
    visibility: Visibility = Visibility.ORGANISATION


@dataclass(frozen=True)
class Counts:
    """Pages by their state."""

    waiting: int = 0
    indexing: int = 0
    indexed: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class Crawl:
    """A crawl as it stands. `slice` numbers the parts of its work: only who holds the last number may go on."""

    id: UUID
    tenant_id: UUID
    user_id: UUID
    wish: Wish
    state: CrawlState = CrawlState.QUEUED
    slice: int = 1
    sites: tuple[str, ...] = ()
    """Hosts that it may read: the one of its start, and where the start itself leads."""
    counts: Counts = Counts()
    size_bytes: int = 0
    limit: Limit = Limit.NONE
    failure: Failure | None = None
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def maker(self) -> Member:
        """Who its documents belong to."""
        return Member(self.tenant_id, self.user_id, "member")


class PageState(StrEnum):
    """WAITING -> INDEXING -> INDEXED, or UNCHANGED, SKIPPED, FAILED; and WAITING again."""

    WAITING = "waiting"
    INDEXING = "indexing"
    INDEXED = "indexed"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"


class Kind(StrEnum):
    """Why an address was found: it is the start or where that leads, a link, a sitemap."""

    START = "start"
    PAGE = "page"
    SITEMAP = "sitemap"


@dataclass(frozen=True)
class Validators:
    """What tells a version of a page from the next one."""

    etag: str = ""
    last_modified: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """An address of a crawl. `next_document_id` is its new document until that is indexed and takes the place of
    `document_id`."""

    position: int
    url: Url
    kind: Kind = Kind.PAGE
    depth: int = 0
    hops: int = 0
    """Redirects on the way here."""
    state: PageState = PageState.WAITING
    reason: Reason | None = None
    message: str = ""
    document_id: UUID | None = None
    next_document_id: UUID | None = None
    validators: Validators = field(default_factory=Validators)
    visit_time: datetime | None = None


class Refused(StrEnum):
    """Why a crawl was not made or started."""

    UNFINISHED = "unfinished"
    IN_ALL = "in all"
    RUNNING = "running"


class Crawls(Protocol):
    """The record of the crawls, as one member sees it."""

    async def add(self, member: Member, crawl_id: UUID, wish: Wish) -> Crawl | Refused:
        """A new crawl with its start, said to the world; or the one that the request_id stands for already."""

    async def find_visible(self, member: Member, crawl_id: UUID) -> Crawl | None: ...

    async def newest(self, member: Member, before: tuple[datetime, UUID] | None, limit: int) -> Sequence[Crawl]:
        """Newest first; `before` is the creation time and id of a crawl that they must be older than."""

    async def start_again(self, member: Member, crawl: Crawl, limits: Limits) -> Refused | None:
        """All pages wait again, but those that were gone; said to the world."""

    async def stop(self, member: Member, crawl: Crawl) -> None:
        """End it, unless it has ended."""

    async def pages(
        self, member: Member, crawl_id: UUID, after: int | None, limit: int, state: PageState | None = None
    ) -> Sequence[Page]:
        """In the order in which they were found; `after` is a position."""

    async def documents(self, member: Member, crawl_id: UUID, limit: int) -> Sequence[UUID]:
        """Some documents of its pages, such as the member still sees."""

    async def delete(self, member: Member, crawl: Crawl) -> None:
        """Remove it with its pages."""


async def create(crawls: Crawls, member: Member, wish: Wish) -> Crawl:
    """Raises AlreadyExists, Exhausted."""
    added = await crawls.add(member, uuid4(), wish)
    if isinstance(added, Refused):
        raise _refusal(added)
    if added.wish != wish:
        raise AlreadyExists(Reason.REQUEST_ID_REUSED, "This request_id was used for another crawl: make a new one.")
    return added


async def get(crawls: Crawls, member: Member, crawl_id: UUID) -> Crawl:
    """The crawl, if `member` sees it. Raises NotFound."""
    if (crawl := await crawls.find_visible(member, crawl_id)) is None:
        raise not_found()
    return crawl


async def start(crawls: Crawls, member: Member, crawl_id: UUID, limits: Limits | None) -> Crawl:
    """Run it again, with these limits from now on. Raises NotFound, Forbidden, WrongState, Exhausted."""
    crawl = await _get_own(crawls, member, crawl_id)
    if refused := await crawls.start_again(member, crawl, limits or crawl.wish.limits):
        raise _refusal(refused)
    return await get(crawls, member, crawl_id)


async def stop(crawls: Crawls, member: Member, crawl_id: UUID) -> Crawl:
    """Raises NotFound, Forbidden."""
    await crawls.stop(member, await _get_own(crawls, member, crawl_id))
    return await get(crawls, member, crawl_id)


async def delete(crawls: Crawls, documents: Documents, member: Member, crawl_id: UUID, with_documents: bool) -> None:
    """Its documents stay unless `with_documents`. Raises NotFound, Forbidden."""
    crawl = await _get_own(crawls, member, crawl_id)
    await crawls.stop(member, crawl)
    while with_documents and (found := await crawls.documents(member, crawl_id, _DELETED_AT_ONCE)):
        for document_id in found:
            if document := await documents.find_visible(member, document_id):
                await documents.delete(member, document)
    await crawls.delete(member, crawl)


async def _get_own(crawls: Crawls, member: Member, crawl_id: UUID) -> Crawl:
    crawl = await get(crawls, member, crawl_id)
    if crawl.user_id != member.user_id and member.role not in _MAY_CHANGE_ANY:
        raise Forbidden(Reason.CRAWL_NOT_YOURS, "Ask who made the crawl, or an admin.")
    return crawl


def not_found() -> NotFound:
    return NotFound(Reason.CRAWL_NOT_FOUND, "There is no such crawl among those that you see.")


def _refusal(refused: Refused) -> WrongState | Exhausted:
    if refused is Refused.RUNNING:
        return WrongState(Reason.CRAWL_RUNNING, "The crawl has not ended: stop it, or wait.")
    if refused is Refused.UNFINISHED:
        message = f"{MAX_UNFINISHED} crawls of your organisation have not ended: wait for one, or stop it."
        return Exhausted(Reason.TOO_MANY_CRAWLS, message, limit=MAX_UNFINISHED)
    return Exhausted(Reason.TOO_MANY_CRAWLS, f"{MAX_CRAWLS} crawls are the most: delete one.", limit=MAX_CRAWLS)
