"""CrawlService over a real server: who sees and changes crawls, and what is refused how."""

from uuid import uuid4

import grpc
import pytest

from parley.knowledge.v1 import crawl_pb2, document_pb2
from parley.knowledge.v1.crawl_service_pb2 import (
    CreateCrawlRequest,
    DeleteCrawlRequest,
    GetCrawlRequest,
    ListCrawlPagesRequest,
    ListCrawlsRequest,
    StartCrawlRequest,
    StopCrawlRequest,
    WatchCrawlRequest,
)
from services.knowledge.crawl.crawl import MAX_UNFINISHED
from services.knowledge.document import Member
from services.knowledge.settings import Settings
from services.shared.events.streams import DURABLES
from tests.knowledge.crawls import Crawler
from tests.refusals import refusal_of
from tests.sites import Site

URL = "https://example.com/"


def wish(url: str = URL, **changed: object) -> CreateCrawlRequest:
    return CreateCrawlRequest(**{"request_id": str(uuid4()), "url": url} | changed)


async def test_a_crawl_is_made_in_its_normal_spelling_with_defaults(crawler: Crawler) -> None:
    created = await crawler.create("HTTPS://EXAMPLE.com:443/a/../b?x=%c3%bc#c", collection="Site")
    assert created.url == "https://example.com/b?x=%C3%BC"
    assert (created.state, created.counts.waiting) == (crawl_pb2.CRAWL_STATE_QUEUED, 1)
    assert created.limits == crawl_pb2.CrawlLimits(max_depth=3, max_pages=200, max_bytes=2**28, max_seconds=1800)
    assert (created.collection, created.visibility) == ("Site", document_pb2.VISIBILITY_ORGANISATION)
    assert created.user_id == str(crawler.member.user_id)
    assert await crawler.get(created.id) == created


async def test_a_repeat_makes_one_crawl(crawler: Crawler) -> None:
    request = wish()
    first = await crawler.stub.CreateCrawl(request, **crawler.me())
    assert await crawler.stub.CreateCrawl(request, **crawler.me()) == first
    request.url = "https://example.com/other"
    refused = await refusal_of(crawler.stub.CreateCrawl(request, **crawler.me()))
    assert refused.reason == "REQUEST_ID_REUSED"


HOSTILE = [
    ("http://127.0.0.1/", "ADDRESS_NOT_ALLOWED"),
    ("http://LocalHost./", "ADDRESS_NOT_ALLOWED"),
    ("http://2130706433/", "ADDRESS_NOT_ALLOWED"),
    ("http://0x7f.1/", "ADDRESS_NOT_ALLOWED"),
    ("http://127.1/", "ADDRESS_NOT_ALLOWED"),
    ("http://017700000001/", "ADDRESS_NOT_ALLOWED"),
    ("http://１２７.０.０.１/", "ADDRESS_NOT_ALLOWED"),
    ("http://127。0。0。1/", "ADDRESS_NOT_ALLOWED"),
    ("http://[::1]/", "ADDRESS_NOT_ALLOWED"),
    ("http://[::ffff:169.254.169.254]/", "ADDRESS_NOT_ALLOWED"),
    ("http://[fd00:ec2::254]/", "ADDRESS_NOT_ALLOWED"),
    ("http://[64:ff9b::10.0.0.1]/", "ADDRESS_NOT_ALLOWED"),
    ("http://169.254.169.254/latest/meta-data/", "ADDRESS_NOT_ALLOWED"),
    ("http://example.com:6379/", "ADDRESS_NOT_ALLOWED"),
    ("http://user:pass@example.com/", "URL_INVALID"),
    ("http://example.com\\@127.0.0.1/", "URL_INVALID"),
    ("file:///etc/passwd", "URL_INVALID"),
    ("gopher://127.0.0.1:6379/_INFO", "URL_INVALID"),
    ("http://", "URL_INVALID"),
    ("http://\x00/", "INVALID_FIELD"),
    ("http://[", "URL_INVALID"),
    ("http://\u202eexample.com/", "URL_INVALID"),
    ("x" * 2048, "URL_INVALID"),
    ("x" * 2049, "INVALID_FIELD"),
    ("", "INVALID_FIELD"),
]


@pytest.mark.parametrize(("url", "reason"), HOSTILE)
async def test_a_hostile_address_is_refused_with_its_reason(crawler: Crawler, url: str, reason: str) -> None:
    assert (await refusal_of(crawler.stub.CreateCrawl(wish(url), **crawler.me()))).reason == reason


@pytest.mark.parametrize(
    "changed",
    [
        {"limits": crawl_pb2.CrawlLimits(max_depth=11)},
        {"limits": crawl_pb2.CrawlLimits(max_pages=10_001)},
        {"limits": crawl_pb2.CrawlLimits(max_bytes=2**32 + 1)},
        {"limits": crawl_pb2.CrawlLimits(max_seconds=21_601)},
        {"collection": " x"},
        {"visibility": 9},
        {"request_id": "x"},
    ],
)
async def test_limits_have_limits(crawler: Crawler, changed: dict[str, object]) -> None:
    assert (await refusal_of(crawler.stub.CreateCrawl(wish(**changed), **crawler.me()))).reason == "INVALID_FIELD"


async def test_an_organisation_has_few_crawls_at_a_time(crawler: Crawler) -> None:
    crawls = [await crawler.create(URL) for _ in range(MAX_UNFINISHED)]
    refused = await refusal_of(crawler.stub.CreateCrawl(wish(), **crawler.me()))
    assert (refused.reason, refused.facts["limit"]) == ("TOO_MANY_CRAWLS", str(MAX_UNFINISHED))
    await crawler.stub.StopCrawl(StopCrawlRequest(crawl_id=crawls[0].id), **crawler.me())
    await crawler.create(URL)
    refused = await refusal_of(crawler.stub.StartCrawl(StartCrawlRequest(crawl_id=crawls[0].id), **crawler.me()))
    assert refused.reason == "TOO_MANY_CRAWLS"
    stranger = crawler.me(tenant=uuid4())
    await crawler.stub.CreateCrawl(wish(), **stranger)


async def test_another_organisation_and_a_private_crawl_are_not_seen(crawler: Crawler) -> None:
    shared = await crawler.create(URL)
    private = await crawler.create(URL, visibility=document_pb2.VISIBILITY_PRIVATE)
    stranger, colleague = crawler.me(tenant=uuid4()), crawler.me(user=uuid4())
    admin = crawler.me(user=uuid4(), role="admin")
    for crawl, who in ((shared, stranger), (private, stranger), (private, colleague), (private, admin)):
        for call in (
            crawler.stub.GetCrawl(GetCrawlRequest(crawl_id=crawl.id), **who),
            crawler.stub.StartCrawl(StartCrawlRequest(crawl_id=crawl.id), **who),
            crawler.stub.StopCrawl(StopCrawlRequest(crawl_id=crawl.id), **who),
            crawler.stub.DeleteCrawl(DeleteCrawlRequest(crawl_id=crawl.id, with_documents=True), **who),
            crawler.stub.ListCrawlPages(ListCrawlPagesRequest(crawl_id=crawl.id), **who),
        ):
            assert (await refusal_of(call)).reason == "CRAWL_NOT_FOUND"
        watch = crawler.stub.WatchCrawl(WatchCrawlRequest(crawl_id=crawl.id), **who)
        assert (await refusal_of(watch.read())).reason == "CRAWL_NOT_FOUND"
    listed = await crawler.stub.ListCrawls(ListCrawlsRequest(), **colleague)
    assert [crawl.id for crawl in listed.crawls] == [shared.id]
    assert not (await crawler.stub.ListCrawls(ListCrawlsRequest(), **stranger)).crawls


async def test_a_colleague_changes_nothing_and_an_admin_may(crawler: Crawler) -> None:
    crawl = await crawler.create(URL)
    colleague, admin = crawler.me(user=uuid4()), crawler.me(user=uuid4(), role="admin")
    await crawler.stub.GetCrawl(GetCrawlRequest(crawl_id=crawl.id), **colleague)
    for call in (
        crawler.stub.StartCrawl(StartCrawlRequest(crawl_id=crawl.id), **colleague),
        crawler.stub.StopCrawl(StopCrawlRequest(crawl_id=crawl.id), **colleague),
        crawler.stub.DeleteCrawl(DeleteCrawlRequest(crawl_id=crawl.id), **colleague),
    ):
        assert (await refusal_of(call)).reason == "CRAWL_NOT_YOURS"
    running = await refusal_of(crawler.stub.StartCrawl(StartCrawlRequest(crawl_id=crawl.id), **admin))
    assert running.reason == "CRAWL_RUNNING"
    stopped = await crawler.stub.StopCrawl(StopCrawlRequest(crawl_id=crawl.id), **admin)
    assert stopped.crawl.state == crawl_pb2.CRAWL_STATE_STOPPED
    await crawler.stub.DeleteCrawl(DeleteCrawlRequest(crawl_id=crawl.id), **admin)
    gone = await refusal_of(crawler.stub.GetCrawl(GetCrawlRequest(crawl_id=crawl.id), **crawler.me()))
    assert gone.reason == "CRAWL_NOT_FOUND"


async def test_crawls_and_pages_come_page_by_page(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/a", "/b", "/404")
    for path in ("/a", "/b"):
        site.page(path, f"Page {path}.")
    crawls = [await crawler.create(URL), await crawler.crawled(site.origin), await crawler.create(URL)]
    found, token = [], ""
    for _ in range(2):
        response = await crawler.stub.ListCrawls(ListCrawlsRequest(page_size=2, page_token=token), **crawler.me())
        found, token = [*found, *response.crawls], response.next_page_token
    assert ([crawl.id for crawl in found], token) == ([crawl.id for crawl in reversed(crawls)], "")
    assert found[1].counts == crawl_pb2.CrawlCounts(indexed=3, failed=1)
    assert len(await crawler.pages(crawls[1])) == 4
    request = ListCrawlPagesRequest(crawl_id=crawls[1].id, state=crawl_pb2.CRAWL_PAGE_STATE_FAILED)
    [failed] = (await crawler.stub.ListCrawlPages(request, **crawler.me())).pages
    assert (failed.url, failed.message) == (f"{site.origin}/404", "The page is not there (404).")
    for page_token in ("x", "W10", "WyItMSJd", "WyI5OTk5OTk5OTk5OTk5OTk5OTk5OTkiXQ"):
        request = ListCrawlPagesRequest(crawl_id=crawls[1].id, page_token=page_token)
        refused = await refusal_of(crawler.stub.ListCrawlPages(request, **crawler.me()))
        assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_a_watch_ends_with_the_crawl(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/a")
    site.page("/a", "Page a.")
    crawl = await crawler.create(site.origin)
    watch = crawler.stub.WatchCrawl(WatchCrawlRequest(crawl_id=crawl.id), **crawler.me())
    seen = aiter(watch)
    assert (await anext(seen)).crawl.state == crawl_pb2.CRAWL_STATE_QUEUED
    await crawler.work(crawl.id)
    states = [answer.crawl.state async for answer in seen]
    assert states[-1] == crawl_pb2.CRAWL_STATE_DONE
    ended = crawler.stub.WatchCrawl(WatchCrawlRequest(crawl_id=crawl.id), **crawler.me())
    assert len([answer async for answer in ended]) == 1


async def test_two_organisations_that_read_one_site_have_their_own_documents(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/a")
    site.page("/a", "Page a.")
    first, mine = await crawler.crawled(site.origin), crawler.member
    mine_ids = {found.id for found in await crawler.all_documents()}
    crawler.member = Member(uuid4(), uuid4(), "member")
    second = await crawler.crawled(site.origin)
    theirs = {found.id for found in await crawler.all_documents()}
    assert (len(mine_ids), len(theirs), mine_ids & theirs) == (2, 2, set())
    await crawler.stub.DeleteCrawl(DeleteCrawlRequest(crawl_id=second.id, with_documents=True), **crawler.me())
    crawler.member = mine
    assert {found.id for found in await crawler.all_documents()} == mine_ids
    assert (await crawler.get(first.id)).counts.indexed == 2


async def test_private_pages_are_for_their_crawler_alone(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.")
    await crawler.crawled(site.origin, visibility=document_pb2.VISIBILITY_PRIVATE, collection="Mine")
    [document] = await crawler.all_documents()
    assert document.file.collection == "Mine"
    colleague = Member(crawler.member.tenant_id, uuid4(), "admin")
    assert await crawler.documents.newest(colleague, None, 10) == []


async def test_no_call_without_a_token(crawler: Crawler) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await crawler.stub.CreateCrawl(wish())
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_what_is_not_said_admits_nothing_inside() -> None:
    assert Settings.crawl_allowed_addresses == ()
    assert {"knowledge-crawling", "knowledge-crawled"} <= {durable.name for durable in DURABLES}
