"""A crawl by the service as the stack starts it, on real stores and NATS: from an address to an answer, and on after a
kill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from parley.knowledge.v1 import crawl_pb2
from parley.knowledge.v1.crawl_service_pb2 import (
    CreateCrawlRequest,
    DeleteCrawlRequest,
    ListCrawlPagesRequest,
    StartCrawlRequest,
    WatchCrawlRequest,
)
from parley.knowledge.v1.crawl_service_pb2_grpc import CrawlServiceStub
from parley.knowledge.v1.knowledge_service_pb2 import ListDocumentsRequest, SearchRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from stack.mesh import Mesh
from tests.conftest import Signer
from tests.knowledge.test_process import Triton, channel_of, me, mesh, originals, serving, triton, vectors
from tests.sites import Site

__all__ = ["mesh", "triton"]


@asynccontextmanager
async def clients(mesh: Mesh) -> AsyncIterator[tuple[CrawlServiceStub, KnowledgeServiceStub]]:
    async with channel_of(mesh, "edge") as channel:
        yield CrawlServiceStub(channel), KnowledgeServiceStub(channel)


async def ended(crawls: CrawlServiceStub, signer: Signer, crawl_id: str) -> crawl_pb2.Crawl:
    watch = crawls.WatchCrawl(WatchCrawlRequest(crawl_id=crawl_id), **me(signer))
    return [answer.crawl async for answer in watch][-1]


async def addresses(knowledge: KnowledgeServiceStub, signer: Signer) -> list[str]:
    listed = await knowledge.ListDocuments(ListDocumentsRequest(page_size=100), **me(signer))
    return sorted(document.source_url for document in listed.documents)


async def test_a_crawl_goes_on_after_the_process_is_killed(
    mesh: Mesh, triton: Triton, signer: Signer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_CRAWL_ALLOWED_ADDRESSES", f"127.0.0.1:{site.port}")
    monkeypatch.setenv("PARLEY_CRAWL_DELAY_S", "0")
    names = [f"/{number}" for number in range(12)]
    site.page("/", "The fees of the city.", *names, "/missing")
    for number, name in enumerate(names):
        site.page(name, f"The fee of permit {number * 7919} is due in spring.", "/")
    wanted = sorted(f"{site.origin}{name}" for name in ["/", *names])
    site.gate.clear()
    site.free = 5
    async with serving(mesh, signer) as process, clients(mesh) as (crawls, _):
        request = CreateCrawlRequest(request_id=str(uuid4()), url=site.origin)
        crawl = (await crawls.CreateCrawl(request, **me(signer))).crawl
        async with asyncio.timeout(30):
            await site.halted.wait()
        process.kill()
        await process.wait()
    site.gate.set()
    async with serving(mesh, signer), clients(mesh) as (crawls, knowledge):
        crawl = await ended(crawls, signer, crawl.id)
        assert crawl.state == crawl_pb2.CRAWL_STATE_DONE
        assert crawl.counts == crawl_pb2.CrawlCounts(indexed=13, failed=1)
        assert await addresses(knowledge, signer) == wanted
        assert await vectors(mesh) == 13
        found = await knowledge.Search(SearchRequest(query="permit 7919", limit=1), **me(signer))
        assert "7919" in found.passages[0].text

        site.page("/1", "The fee of permit 104729 is due in autumn.", "/")
        del site.pages["/2"]
        await crawls.StartCrawl(StartCrawlRequest(crawl_id=crawl.id), **me(signer))
        crawl = await ended(crawls, signer, crawl.id)
        assert crawl.counts == crawl_pb2.CrawlCounts(indexed=1, unchanged=11, failed=2)
        wanted.remove(f"{site.origin}/2")
        assert await addresses(knowledge, signer) == wanted
        found = await knowledge.Search(SearchRequest(query="permit 104729", limit=1), **me(signer))
        assert "104729" in found.passages[0].text
        pages = await crawls.ListCrawlPages(ListCrawlPagesRequest(crawl_id=crawl.id, page_size=100), **me(signer))
        assert len([page for page in pages.pages if page.document_id]) == 12

        request = DeleteCrawlRequest(crawl_id=crawl.id, with_documents=True)
        await crawls.DeleteCrawl(request, **me(signer))
        async with asyncio.timeout(10):
            while await vectors(mesh) or originals(mesh):
                await asyncio.sleep(0.05)
