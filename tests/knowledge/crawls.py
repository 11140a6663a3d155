"""Crawls of a test's own site: the service's own parts on a real PostgreSQL, the web asked through the real guard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID, uuid4

from parley.knowledge.v1 import crawl_pb2
from parley.knowledge.v1.crawl_service_pb2 import (
    CreateCrawlRequest,
    GetCrawlRequest,
    ListCrawlPagesRequest,
    StartCrawlRequest,
)
from parley.knowledge.v1.crawl_service_pb2_grpc import CrawlServiceStub, add_CrawlServiceServicer_to_server
from services.knowledge.crawl.handlers import CrawlService
from services.knowledge.crawl.pace import Pace
from services.knowledge.crawl.reading import LinkProcess
from services.knowledge.crawl.settle import Settling
from services.knowledge.crawl.store import StoredCrawls
from services.knowledge.crawl.visit import Visits
from services.knowledge.crawl.watch import CrawlWatch
from services.knowledge.crawl.web import GuardedWeb
from services.knowledge.crawl.work import Crawling
from services.knowledge.document import Document, DocumentState, Failure, Member
from services.knowledge.handlers import RULES
from services.knowledge.store import StoredDocuments, StoredUploads
from services.knowledge.upload import Quota, Reception
from services.shared.errors import Reason
from services.shared.outbound.addresses import Addresses
from services.shared.outbound.client import Outbound
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from tests.conftest import ServeLocally, Signer
from tests.knowledge.fakes import FakeOriginals
from tests.sites import Site


@dataclass
class Crawler:
    """The crawling half of the service for one member; documents are indexed by hand."""

    database: Database
    stub: CrawlServiceStub
    crawls: StoredCrawls
    documents: StoredDocuments
    originals: FakeOriginals
    crawling: Crawling
    settling: Settling
    signer: Signer
    serve_locally: ServeLocally
    member: Member = field(default_factory=lambda: Member(uuid4(), uuid4(), "member"))

    def me(self, **claims: object) -> dict[str, object]:
        mine = {"tenant": self.member.tenant_id, "user": self.member.user_id}
        return {"metadata": self.signer.metadata(**mine | claims), "timeout": 30}

    async def create(self, url: str, **wished: object) -> crawl_pb2.Crawl:
        limits = crawl_pb2.CrawlLimits(**wished.pop("limits", {}))
        request = CreateCrawlRequest(request_id=str(uuid4()), url=url, limits=limits, **wished)
        return (await self.stub.CreateCrawl(request, **self.me())).crawl

    async def get(self, crawl_id: str) -> crawl_pb2.Crawl:
        return (await self.stub.GetCrawl(GetCrawlRequest(crawl_id=crawl_id), **self.me())).crawl

    async def work(self, crawl_id: str) -> crawl_pb2.Crawl:
        """Do what the consumers do, until the crawl has ended."""
        for _ in range(100):
            known = await self.crawls.find_visible(self.member, UUID(crawl_id))
            assert known
            if known.state.is_final:
                break
            await self.crawling.work(self.member.tenant_id, known.id, known.slice)
            await self.index()
        return await self.get(crawl_id)

    async def index(self) -> None:
        """Index what is queued; a document whose content says so fails."""
        for document in await self.all_documents():
            if document.state is not DocumentState.QUEUED:
                continue
            begun = await self.documents.begin_indexing(document.tenant_id, document.id)
            assert begun
            if b"unreadable" in self.content(document):
                await self.documents.fail(begun, Failure(Reason.DOCUMENT_CORRUPT, "It is damaged."))
            else:
                await self.documents.complete(begun, 1)
            await self.settling.settle(document.tenant_id, document.id)

    async def crawled(self, url: str, **wished: object) -> crawl_pb2.Crawl:
        return await self.work((await self.create(url, **wished)).id)

    async def start(self, crawl: crawl_pb2.Crawl, **limits: int) -> None:
        changed = crawl_pb2.CrawlLimits(**limits) if limits else None
        await self.stub.StartCrawl(StartCrawlRequest(crawl_id=crawl.id, limits=changed), **self.me())

    async def again(self, crawl: crawl_pb2.Crawl, **limits: int) -> crawl_pb2.Crawl:
        await self.start(crawl, **limits)
        return await self.work(crawl.id)

    async def pages(self, crawl: crawl_pb2.Crawl) -> dict[str, tuple[str, str]]:
        """State and reason of each page by its path and query."""
        found, token = {}, ""
        while True:
            request = ListCrawlPagesRequest(crawl_id=crawl.id, page_token=token, page_size=100)
            response = await self.stub.ListCrawlPages(request, **self.me())
            for page in response.pages:
                state = crawl_pb2.CrawlPageState.Name(page.state).removeprefix("CRAWL_PAGE_STATE_")
                found["/" + page.url.split("/", 3)[3]] = (state, reason_of(page))
            if not (token := response.next_page_token):
                return found

    async def messages(self, crawl: crawl_pb2.Crawl) -> dict[str, str]:
        request = ListCrawlPagesRequest(crawl_id=crawl.id, page_size=100)
        pages = (await self.stub.ListCrawlPages(request, **self.me())).pages
        return {"/" + page.url.split("/", 3)[3]: page.message for page in pages}

    async def all_documents(self) -> list[Document]:
        return list(await self.documents.newest(self.member, None, 1000))

    async def names(self) -> list[str]:
        """The paths of the documents' addresses, sorted."""
        return sorted("/" + found.file.source_url.split("/", 3)[3] for found in await self.all_documents())

    def content(self, document: Document) -> bytes:
        return self.originals.objects[(document.tenant_id, document.id)]


def reason_of(page: crawl_pb2.CrawlPage) -> str:
    from parley.errors.v1.error_reason_pb2 import ErrorReason

    return ErrorReason.Name(page.reason).removeprefix("ERROR_REASON_") if page.reason else ""


@asynccontextmanager
async def crawling(
    database: Database,
    serve_locally: ServeLocally,
    signer: Signer,
    *sites: Site,
    quota: Quota | None = None,
    kept_in: FakeOriginals | None = None,
) -> AsyncIterator[Crawler]:
    """A crawler that may ask these sites alone."""
    addresses = Addresses([f"127.0.0.1:{site.port}" for site in sites])
    crawls, documents = StoredCrawls(database), StoredDocuments(database)
    originals, settling = kept_in or FakeOriginals(), Settling(crawls, documents)
    reception = Reception(StoredUploads(database, quota or Quota()), originals)
    async with Outbound(addresses) as outbound:
        web, links = GuardedWeb(outbound), LinkProcess(2**30, 10, 20.0)
        visits = Visits(crawls, documents, reception, web, links, Pace(0.0), settling)
        listener = Listener(database, "knowledge")
        handler = CrawlService(crawls, documents, CrawlWatch(crawls, listener), addresses.check)
        add = partial(add_CrawlServiceServicer_to_server, handler)
        async with listener.running(), serve_locally(add, rules=RULES) as channel:
            worker = Crawling(crawls, visits, web)
            yield Crawler(
                database, CrawlServiceStub(channel), crawls, documents, originals, worker, settling, signer,
                serve_locally,
            )  # fmt: skip
