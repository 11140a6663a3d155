"""The RPCs of CrawlService, and what is done on its events and on those of documents."""

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias
from uuid import UUID

import grpc

from parley.knowledge.v1.crawl_service_pb2 import (
    CreateCrawlRequest,
    CreateCrawlResponse,
    DeleteCrawlRequest,
    DeleteCrawlResponse,
    GetCrawlRequest,
    GetCrawlResponse,
    ListCrawlPagesRequest,
    ListCrawlPagesResponse,
    ListCrawlsRequest,
    ListCrawlsResponse,
    StartCrawlRequest,
    StartCrawlResponse,
    StopCrawlRequest,
    StopCrawlResponse,
    WatchCrawlRequest,
    WatchCrawlResponse,
)
from parley.knowledge.v1.crawl_service_pb2_grpc import CrawlServiceServicer
from parley.knowledge.v1.knowledge_events_pb2 import CrawlRequested, DocumentDeleted, DocumentIndexed
from services.knowledge.crawl import crawl, wire
from services.knowledge.crawl.crawl import Crawls
from services.knowledge.crawl.settle import Settling
from services.knowledge.crawl.watch import CrawlWatch
from services.knowledge.crawl.work import Crawling
from services.knowledge.document import Documents, Member
from services.knowledge.wire import before
from services.shared.events.consumer import Event
from services.shared.outbound.url import Url
from services.shared.pages import DEFAULT_SIZE
from services.shared.serving.identity import caller_of

ENDLESS = frozenset({"/parley.knowledge.v1.CrawlService/WatchCrawl"})
Context: TypeAlias = grpc.aio.ServicerContext


class CrawlService(CrawlServiceServicer):
    """The crawls of the caller's organisation. `check_address` raises Invalid for an address that may not be asked."""

    def __init__(
        self, crawls: Crawls, documents: Documents, watch: CrawlWatch, check_address: Callable[[Url], None]
    ) -> None:
        self._crawls = crawls
        self._documents = documents
        self._watch = watch
        self._check_address = check_address

    async def CreateCrawl(self, request: CreateCrawlRequest, context: Context) -> CreateCrawlResponse:
        wish = wire.wish(request)
        self._check_address(wish.url)
        created = await crawl.create(self._crawls, _member(context), wish)
        return CreateCrawlResponse(crawl=wire.crawl(created))

    async def GetCrawl(self, request: GetCrawlRequest, context: Context) -> GetCrawlResponse:
        found = await crawl.get(self._crawls, _member(context), UUID(request.crawl_id))
        return GetCrawlResponse(crawl=wire.crawl(found))

    async def ListCrawls(self, request: ListCrawlsRequest, context: Context) -> ListCrawlsResponse:
        size = request.page_size or DEFAULT_SIZE
        found = await self._crawls.newest(_member(context), before(request.page_token), size + 1)
        page = found[:size]
        return ListCrawlsResponse(
            crawls=map(wire.crawl, page),
            next_page_token=wire.older_token(page[-1]) if len(found) > size else "",
        )

    async def WatchCrawl(self, request: WatchCrawlRequest, context: Context) -> AsyncIterator[WatchCrawlResponse]:
        member, expires_at_s = _member(context), caller_of(context).expires_at_s
        async for found in self._watch(member, UUID(request.crawl_id), expires_at_s):
            yield WatchCrawlResponse(crawl=wire.crawl(found))

    async def StartCrawl(self, request: StartCrawlRequest, context: Context) -> StartCrawlResponse:
        limits = wire.limits(request.limits) if request.HasField("limits") else None
        started = await crawl.start(self._crawls, _member(context), UUID(request.crawl_id), limits)
        return StartCrawlResponse(crawl=wire.crawl(started))

    async def StopCrawl(self, request: StopCrawlRequest, context: Context) -> StopCrawlResponse:
        stopped = await crawl.stop(self._crawls, _member(context), UUID(request.crawl_id))
        return StopCrawlResponse(crawl=wire.crawl(stopped))

    async def DeleteCrawl(self, request: DeleteCrawlRequest, context: Context) -> DeleteCrawlResponse:
        member, crawl_id = _member(context), UUID(request.crawl_id)
        await crawl.delete(self._crawls, self._documents, member, crawl_id, request.with_documents)
        return DeleteCrawlResponse()

    async def ListCrawlPages(self, request: ListCrawlPagesRequest, context: Context) -> ListCrawlPagesResponse:
        member, crawl_id, size = _member(context), UUID(request.crawl_id), request.page_size or DEFAULT_SIZE
        after, state = wire.after(request.page_token), wire.page_state(request.state)
        await crawl.get(self._crawls, member, crawl_id)
        found = await self._crawls.pages(member, crawl_id, after, size + 1, state)
        page = found[:size]
        return ListCrawlPagesResponse(
            pages=map(wire.page, page), next_page_token=wire.after_token(page[-1]) if len(found) > size else ""
        )


class CrawlEvents:
    """What is done on events, for the durable consumers; every method may be repeated."""

    def __init__(self, crawling: Crawling, settling: Settling) -> None:
        self._crawling = crawling
        self._settling = settling

    async def work(self, event: Event) -> None:
        asked = CrawlRequested.FromString(event.payload)
        await self._crawling.work(event.tenant_id, UUID(asked.crawl_id), asked.slice)

    async def give_up(self, event: Event) -> None:
        asked = CrawlRequested.FromString(event.payload)
        await self._crawling.give_up(event.tenant_id, UUID(asked.crawl_id), asked.slice)

    async def settle(self, event: Event) -> None:
        if event.type.endswith(".DocumentDeleted"):
            deleted = DocumentDeleted.FromString(event.payload)
            await self._settling.forget(event.tenant_id, UUID(deleted.document_id))
        else:  # DocumentFailed has its document's id in the same place
            ended = DocumentIndexed.FromString(event.payload)
            await self._settling.settle(event.tenant_id, UUID(ended.document_id))


def _member(context: Context) -> Member:
    caller = caller_of(context)
    return Member(caller.tenant_id, caller.user_id, caller.role)
