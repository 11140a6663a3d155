"""Crawls and their pages in PostgreSQL; each change that the world hears of with its event in one statement."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from parley.knowledge.v1.knowledge_events_pb2 import CrawlRequested
from services.knowledge.crawl.crawl import (
    MAX_CRAWLS,
    MAX_UNFINISHED,
    Counts,
    Crawl,
    CrawlState,
    Kind,
    Limit,
    Limits,
    Page,
    PageState,
    Refused,
    Validators,
    Wish,
)
from services.knowledge.crawl.visit import Outcome
from services.knowledge.document import Failure, Member, Visibility
from services.shared.errors import Reason
from services.shared.outbound.url import Url, parse
from services.shared.postgres.database import Database

_MOST_SITEMAPS = 50


class StoredCrawls:
    """Implements crawl.Crawls, visit.Pages, work.WorkedCrawls and settle.AwaitedPages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, member: Member, crawl_id: UUID, wish: Wish) -> Crawl | Refused:
        limits = wish.limits
        values = (
            *(member.tenant_id, member.user_id, wish.request_id, crawl_id, str(wish.url), wish.collection),
            *(wish.visibility, limits.depth, limits.pages, limits.size_bytes, limits.seconds, [wish.url.site]),
            *(_request(member.tenant_id, member.user_id, crawl_id, 1), MAX_UNFINISHED, MAX_CRAWLS),
        )
        try:
            row = await self._database.one("add_crawl", *values)
        except asyncpg.UniqueViolationError:  # the same at once: now the other one is visible
            row = await self._database.one("add_crawl", *values)
        assert row
        if row["id"] is None:
            return Refused(row["refused"])
        added = await self.find_visible(member, row["id"])
        assert added
        return added

    async def find_visible(self, member: Member, crawl_id: UUID) -> Crawl | None:
        row = await self._database.one("find_visible_crawl", member.tenant_id, member.user_id, crawl_id)
        return _crawl(row) if row else None

    async def newest(self, member: Member, before: tuple[datetime, UUID] | None, limit: int) -> Sequence[Crawl]:
        values = (member.tenant_id, member.user_id, *(before or (None, None)), limit)
        return [_crawl(row) for row in await self._database.all("newest_crawls", *values)]

    async def start_again(self, member: Member, crawl: Crawl, limits: Limits) -> Refused | None:
        event = _request(crawl.tenant_id, crawl.user_id, crawl.id, crawl.slice + 1)
        values = (member.tenant_id, member.user_id, crawl.id, crawl.slice, MAX_UNFINISHED, event)
        row = await self._database.one(
            "start_crawl_again", *values, limits.depth, limits.pages, limits.size_bytes, limits.seconds
        )
        assert row
        if row["id"]:
            return None
        return Refused.UNFINISHED if row["refused"] and crawl.state.is_final else Refused.RUNNING

    async def stop(self, member: Member, crawl: Crawl) -> None:
        await self._database.one("stop_crawl", member.tenant_id, member.user_id, crawl.id)

    async def pages(
        self, member: Member, crawl_id: UUID, after: int | None, limit: int, state: PageState | None = None
    ) -> Sequence[Page]:
        values = (member.tenant_id, member.user_id, crawl_id, after, limit, state)
        return [_page(row) for row in await self._database.all("crawl_pages", *values)]

    async def documents(self, member: Member, crawl_id: UUID, limit: int) -> Sequence[UUID]:
        rows = await self._database.all("documents_of_crawl", member.tenant_id, member.user_id, crawl_id, limit)
        return [row["id"] for row in rows]

    async def delete(self, member: Member, crawl: Crawl) -> None:
        await self._database.one("delete_crawl", member.tenant_id, member.user_id, crawl.id)

    async def begin_slice(self, tenant_id: UUID, crawl_id: UUID, slice_: int) -> Crawl | None:
        row = await self._database.one("begin_slice", tenant_id, crawl_id, slice_)
        return _crawl(row) if row else None

    async def waiting(self, crawl: Crawl, limit: int) -> Sequence[Page]:
        rows = await self._database.all("waiting_pages", crawl.tenant_id, crawl.id, crawl.slice, limit)
        return [_page(row) for row in rows]

    async def next_slice(self, crawl: Crawl) -> None:
        event = _request(crawl.tenant_id, crawl.user_id, crawl.id, crawl.slice + 1)
        await self._database.one("next_slice", crawl.tenant_id, crawl.id, crawl.slice, event)

    async def add_pages(self, crawl: Crawl, urls: Sequence[Url], kind: Kind, depth: int, hops: int) -> None:
        if urls:
            named = [str(url) for url in urls]
            values = (crawl.tenant_id, crawl.id, named, kind, depth, hops, _MOST_SITEMAPS)
            await self._database.one("add_crawl_pages", *values)

    async def find_page(self, crawl: Crawl, url: Url) -> Page | None:
        row = await self._database.one("find_crawl_page", crawl.tenant_id, crawl.id, str(url))
        return _page(row) if row else None

    async def adopt(self, crawl: Crawl, site: str) -> None:
        await self._database.one("adopt_site", crawl.tenant_id, crawl.id, site)

    async def finish_page(self, crawl: Crawl, page: Page, outcome: Outcome) -> bool:
        valid = outcome.validators
        values = (
            *(outcome.state, outcome.reason, outcome.message, outcome.is_gone, outcome.next_document_id),
            *(outcome.keeps_document, valid.etag, valid.last_modified, valid.sha256, outcome.size_bytes),
            outcome.may_pass,
        )
        row = await self._database.one("finish_crawl_page", crawl.tenant_id, crawl.id, page.position, *values)
        return row is not None

    async def end(self, crawl: Crawl, limit: Limit, failure: Failure | None) -> None:
        why = (failure.reason, failure.message) if failure else (None, None)
        await self._database.one("end_crawl", crawl.tenant_id, crawl.id, crawl.slice, limit, *why)

    async def complete(self, crawl: Crawl) -> None:
        await self._database.one("complete_crawl", crawl.tenant_id, crawl.id)

    async def find_page_of(self, tenant_id: UUID, document_id: UUID) -> tuple[Crawl, Page] | None:
        page = await self._database.one("find_page_of_document", tenant_id, document_id)
        crawl = await self._database.one("find_crawl", tenant_id, page["crawl_id"]) if page else None
        return (_crawl(crawl), _page(page)) if page and crawl else None

    async def replace_document(self, crawl: Crawl, page: Page, document_id: UUID) -> None:
        await self._database.one("replace_page_document", crawl.tenant_id, crawl.id, page.position, document_id)

    async def fail_document(self, crawl: Crawl, page: Page, document_id: UUID, failure: Failure) -> None:
        values = (crawl.tenant_id, crawl.id, page.position, document_id, failure.reason, failure.message)
        await self._database.one("fail_page_document", *values)

    async def forget_document(self, tenant_id: UUID, document_id: UUID) -> Crawl | None:
        row = await self._database.one("forget_page_document", tenant_id, document_id)
        return _crawl(row) if row else None


def _request(tenant_id: UUID, user_id: UUID, crawl_id: UUID, slice_: int) -> bytes:
    event = CrawlRequested(tenant_id=str(tenant_id), user_id=str(user_id), crawl_id=str(crawl_id), slice=slice_)
    return event.SerializeToString()


def _crawl(row: asyncpg.Record) -> Crawl:
    limits = Limits(row["max_depth"], row["max_pages"], row["max_bytes"], row["max_seconds"])
    visibility = Visibility(row["visibility"])
    return Crawl(
        id=row["id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        wish=Wish(row["request_id"], parse(row["url"]), limits, row["collection"], visibility),
        state=CrawlState(row["state"]),
        slice=row["slice"],
        sites=tuple(row["sites"]),
        counts=Counts(*(row.get(state.value, 0) for state in PageState)),
        size_bytes=row["bytes"],
        limit=Limit(row["limit_reached"]),
        failure=_failure(row["failure_reason"], row["failure_message"]),
        create_time=row["create_time"],
        start_time=row["start_time"],
        end_time=row["end_time"],
    )


def _page(row: asyncpg.Record) -> Page:
    return Page(
        position=row["position"],
        url=parse(row["url"]),
        kind=Kind(row["kind"]),
        depth=row["depth"],
        hops=row["hops"],
        state=PageState(row["state"]),
        reason=Reason(row["reason"]) if row["reason"] else None,
        message=row["message"],
        document_id=row["document_id"],
        next_document_id=row["next_document_id"],
        validators=Validators(row["etag"], row["last_modified"], row["sha256"]),
        visit_time=row["visit_time"],
    )


def _failure(reason: str | None, message: str | None) -> Failure | None:
    return Failure(Reason(reason), message or "") if reason else None
