"""Between proto messages and domain values: crawls and their pages."""

from uuid import UUID

from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.knowledge.v1 import crawl_pb2, document_pb2
from parley.knowledge.v1.crawl_service_pb2 import CreateCrawlRequest
from services.knowledge.crawl.crawl import Crawl, Limits, Page, PageState, Wish
from services.knowledge.document import Visibility
from services.shared.outbound.url import parse
from services.shared.pages import foreign_token, page_key, page_token

_LAST_POSITION = 2**63 - 1


def wish(request: CreateCrawlRequest) -> Wish:
    """What a member asks for. Raises Invalid."""
    is_private = request.visibility == document_pb2.VISIBILITY_PRIVATE
    visibility = Visibility.PRIVATE if is_private else Visibility.ORGANISATION
    return Wish(UUID(request.request_id), parse(request.url), limits(request.limits), request.collection, visibility)


def limits(asked: crawl_pb2.CrawlLimits) -> Limits:
    """How far to go, with the defaults of what is not said."""
    default = Limits()
    return Limits(
        depth=asked.max_depth if asked.HasField("max_depth") else default.depth,
        pages=asked.max_pages or default.pages,
        size_bytes=asked.max_bytes or default.size_bytes,
        seconds=asked.max_seconds or default.seconds,
    )


def crawl(found: Crawl) -> crawl_pb2.Crawl:
    """The message of a crawl."""
    far, counts = found.wish.limits, found.counts
    message = crawl_pb2.Crawl(
        id=str(found.id),
        url=str(found.wish.url),
        limits=crawl_pb2.CrawlLimits(
            max_depth=far.depth, max_pages=far.pages, max_bytes=far.size_bytes, max_seconds=far.seconds
        ),
        collection=found.wish.collection,
        visibility=document_pb2.Visibility.Value(f"VISIBILITY_{found.wish.visibility.name}"),
        state=crawl_pb2.CrawlState.Value(f"CRAWL_STATE_{found.state.name}"),
        counts=crawl_pb2.CrawlCounts(
            waiting=counts.waiting,
            indexing=counts.indexing,
            indexed=counts.indexed,
            unchanged=counts.unchanged,
            skipped=counts.skipped,
            failed=counts.failed,
        ),
        bytes=found.size_bytes,
        limit_reached=crawl_pb2.CrawlLimit.Value(f"CRAWL_LIMIT_{found.limit.name}") if found.limit else 0,
        user_id=str(found.user_id),
        create_time=found.create_time,
        start_time=found.start_time,
        end_time=found.end_time,
    )
    if found.failure:
        message.failure.reason = ErrorReason.Value(f"ERROR_REASON_{found.failure.reason}")
        message.failure.message = found.failure.message
    return message


def page(found: Page) -> crawl_pb2.CrawlPage:
    """The message of a page."""
    return crawl_pb2.CrawlPage(
        url=str(found.url),
        depth=found.depth,
        state=crawl_pb2.CrawlPageState.Value(f"CRAWL_PAGE_STATE_{found.state.name}"),
        reason=ErrorReason.Value(f"ERROR_REASON_{found.reason}") if found.reason else 0,
        message=found.message,
        document_id=str(found.document_id or found.next_document_id or ""),
        visit_time=found.visit_time,
    )


def page_state(named: crawl_pb2.CrawlPageState) -> PageState | None:
    """None for all."""
    if not named:
        return None
    return PageState[crawl_pb2.CrawlPageState.Name(named).removeprefix("CRAWL_PAGE_STATE_")]


def older_token(last: Crawl) -> str:
    """The page token of the crawls older than `last`."""
    return page_token(last.create_time, last.id)


def after_token(last: Page) -> str:
    """The page token of the pages after `last`."""
    return page_token(last.position)


def after(token: str) -> int | None:
    """The position that the pages of this page come after; None for the first. Raises Invalid."""
    if (key := page_key(token, 1)) is None:
        return None
    if not (key[0].isascii() and key[0].isdecimal() and len(key[0]) < 20 and int(key[0]) <= _LAST_POSITION):
        raise foreign_token()
    return int(key[0])
