"""A site that is read again, and work that was cut off: what did not change stays, nothing is there twice."""

import asyncio
from typing import IO
from uuid import UUID

import pytest

from parley.knowledge.v1 import crawl_pb2
from parley.knowledge.v1.crawl_service_pb2 import DeleteCrawlRequest, StopCrawlRequest
from services.knowledge.document import DocumentState
from services.knowledge.upload import Quota
from services.shared.errors import Unavailable
from services.shared.postgres.database import Database
from tests.conftest import ServeLocally, Signer
from tests.knowledge.crawls import Crawler, crawling
from tests.knowledge.fakes import FakeOriginals
from tests.sites import Answer, Site


def paths_since(site: Site, before: int) -> list[str]:
    return [path for path, _ in site.asked[before:] if path != "/robots.txt"]


async def test_pages_that_did_not_change_are_not_sent_again(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/dated", "/plain", etag='"home-1"')
    site.pages["/dated"] = Answer("<html><body>Dated.", headers={"Last-Modified": "Sat, 07 Mar 2026 10:00:00 GMT"})
    site.page("/plain", "Plain.")
    first = await crawler.crawled(site.origin)
    ids, before = {found.id for found in await crawler.all_documents()}, len(site.asked)
    second = await crawler.again(first)
    assert (second.state, second.counts.unchanged) == (crawl_pb2.CRAWL_STATE_DONE, 3)
    asked = dict(site.asked[before:])
    assert asked["/"]["if-none-match"] == '"home-1"'
    assert asked["/dated"]["if-modified-since"] == "Sat, 07 Mar 2026 10:00:00 GMT"
    assert {found.id for found in await crawler.all_documents()} == ids


async def test_a_changed_page_replaces_its_document_without_a_gap(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home, the first.", etag='"1"')
    crawl = await crawler.crawled(site.origin)
    [old] = await crawler.all_documents()
    site.page("/", "Home, the second.", "/new", etag='"2"')
    site.page("/new", "New.")
    await crawler.start(crawl)
    known = await crawler.crawls.find_visible(crawler.member, UUID(crawl.id))
    assert known
    await crawler.crawling.work(crawler.member.tenant_id, known.id, known.slice)
    states = {found.id: found.state for found in await crawler.all_documents()}
    assert states.pop(old.id) is DocumentState.INDEXED  # still found while its next version is not
    assert set(states.values()) == {DocumentState.QUEUED}
    crawl = await crawler.work(crawl.id)
    assert crawl.counts.indexed == 2
    assert await crawler.names() == ["/", "/new"]
    assert old.id not in {found.id for found in await crawler.all_documents()}


async def test_a_next_version_that_cannot_be_read_leaves_the_old_one(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.")
    crawl = await crawler.crawled(site.origin)
    [old] = await crawler.all_documents()
    site.page("/", "Home, unreadable now.")
    crawl = await crawler.again(crawl)
    assert (await crawler.pages(crawl))["/"] == ("FAILED", "DOCUMENT_CORRUPT")
    assert [found.id for found in await crawler.all_documents()] == [old.id]
    site.page("/", "Home.")
    crawl = await crawler.again(crawl)
    assert (await crawler.pages(crawl))["/"][0] == "UNCHANGED"


async def test_what_is_gone_is_removed_and_what_is_only_away_is_not(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/gone", "/away", "/moved", "/hidden", "/guarded", "/odd", etag='"1"')
    for path in ("/gone", "/away", "/moved", "/hidden", "/guarded", "/odd"):
        site.page(path, f"Page {path}.", etag=f'"{path}"')
    crawl = await crawler.crawled(site.origin)
    del site.pages["/gone"]
    site.pages["/away"] = Answer("Later.", 503)
    site.pages["/moved"] = Answer(status=301, headers={"Location": "/new-place"})
    site.pages["/guarded"] = Answer(status=302, headers={"Location": "https://sign-in.example/" + "x" * 1900})
    site.pages["/odd"] = Answer(status=301, headers={"Location": "mailto:x@example.com"})
    site.page("/new-place", "Page at its new place.")
    site.page("/hidden", "Page /hidden.", head='<meta name="robots" content="noindex">')
    crawl = await crawler.again(crawl)
    assert await crawler.names() == ["/", "/away", "/guarded", "/new-place"]
    assert max(map(len, (await crawler.messages(crawl)).values())) == 300
    pages = await crawler.pages(crawl)
    assert (pages["/gone"], pages["/away"][0]) == (("FAILED", "PAGE_NOT_REACHABLE"), "FAILED")
    before = len(site.asked)
    await crawler.again(crawl)
    assert "/gone" not in paths_since(site, before)


async def test_limits_of_a_later_start_hold(crawler: Crawler, site: Site) -> None:
    names = [f"/{number}" for number in range(6)]
    site.page("/", "Home.", *names)
    for name in names:
        site.page(name, f"Page {name}.", "/deep")
    site.page("/deep", "Deep.")
    crawl = await crawler.crawled(site.origin, limits={"max_pages": 3})
    assert len(await crawler.names()) == 3
    crawl = await crawler.again(crawl, max_depth=1, max_pages=20)
    assert await crawler.names() == ["/", *names]
    assert (crawl.counts.unchanged, crawl.counts.indexed) == (3, 4)
    before = len(site.asked)
    crawl = await crawler.again(crawl, max_pages=2)
    assert len(paths_since(site, before)) == 2
    assert await crawler.names() == ["/", *names]


async def test_a_document_that_somebody_deleted_is_read_anew(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", etag='"1"')
    crawl = await crawler.crawled(site.origin)
    [document] = await crawler.all_documents()
    await crawler.documents.delete(crawler.member, document)
    await crawler.settling.forget(crawler.member.tenant_id, document.id)
    assert (await crawler.pages(crawl))["/"][0] == "SKIPPED"
    await crawler.again(crawl)
    assert await crawler.names() == ["/"]


async def test_work_that_was_cut_off_goes_on_and_doubles_nothing(crawler: Crawler, site: Site) -> None:
    names = [f"/{number}" for number in range(8)]
    site.page("/", "Home.", *names)
    for name in names:
        site.page(name, f"Page {name}.")
    crawl = await crawler.create(site.origin)
    known = await crawler.crawls.find_visible(crawler.member, UUID(crawl.id))
    assert known
    site.gate.clear()
    site.free = 4
    work = asyncio.create_task(crawler.crawling.work(known.tenant_id, known.id, known.slice))
    async with asyncio.timeout(30):
        await site.halted.wait()
    work.cancel()
    await asyncio.wait([work])
    site.gate.set()
    crawl = await crawler.work(crawl.id)
    assert crawl.counts.indexed == 9
    assert await crawler.names() == ["/", *names]
    assert len(site.paths) <= 11  # those two that were under way come again


async def test_two_that_work_on_one_crawl_at_once_double_nothing(crawler: Crawler, site: Site) -> None:
    names = [f"/{number}" for number in range(8)]
    site.page("/", "Home.", *names)
    for name in names:
        site.page(name, f"Page {name}.")
    crawl = await crawler.create(site.origin)
    known = await crawler.crawls.find_visible(crawler.member, UUID(crawl.id))
    assert known
    work = (known.tenant_id, known.id, known.slice)
    await asyncio.gather(*(crawler.crawling.work(*work) for _ in range(3)))
    crawl = await crawler.work(crawl.id)
    assert (crawl.counts.indexed, await crawler.names()) == (9, ["/", *names])
    before = len(site.asked)
    await crawler.crawling.work(*work)  # the event comes once more
    assert len(site.asked) == before


async def test_while_the_store_is_away_a_crawl_waits(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.")
    crawl = await crawler.create(site.origin)
    known = await crawler.crawls.find_visible(crawler.member, UUID(crawl.id))
    assert known
    crawler.originals.down = True
    with pytest.raises(ExceptionGroup) as failed:
        await crawler.crawling.work(known.tenant_id, known.id, known.slice)
    assert failed.group_contains(Unavailable)
    crawler.originals.down = False
    assert (await crawler.work(crawl.id)).counts.indexed == 1


class FlawedOriginals(FakeOriginals):
    """Stumbles over one content, as a defect would."""

    async def put(self, tenant_id: UUID, document_id: UUID, content: IO[bytes]) -> None:
        if b"stumble" in content.read():
            raise KeyError("a defect")
        content.seek(0)
        await super().put(tenant_id, document_id, content)


async def test_a_page_that_we_stumble_over_ends_alone(
    crawl_database: Database, serve_locally: ServeLocally, signer: Signer, site: Site
) -> None:
    site.page("/", "Home.", "/bad", "/good")
    site.page("/bad", "Here we stumble.")
    site.page("/good", "Good.")
    async with crawling(crawl_database, serve_locally, signer, site, kept_in=FlawedOriginals()) as crawler:
        crawl = await crawler.crawled(site.origin)
        assert (await crawler.pages(crawl))["/bad"] == ("FAILED", "INDEXING_FAILED")
        assert (crawl.state, await crawler.names()) == (crawl_pb2.CRAWL_STATE_DONE, ["/", "/good"])


async def test_work_that_failed_too_often_ends_the_crawl(crawler: Crawler, site: Site) -> None:
    crawl = await crawler.create(site.origin)
    await crawler.crawling.give_up(crawler.member.tenant_id, UUID(crawl.id), 1)
    crawl = await crawler.get(crawl.id)
    assert crawl.state == crawl_pb2.CRAWL_STATE_FAILED
    assert "again later" in crawl.failure.message


async def test_a_full_organisation_ends_the_crawl(
    crawl_database: Database, serve_locally: ServeLocally, signer: Signer, site: Site
) -> None:
    site.page("/", "Home.", *(f"/{number}" for number in range(20)))
    for number in range(20):
        site.page(f"/{number}", f"Page {number}.")
    async with crawling(crawl_database, serve_locally, signer, site, quota=Quota(3)) as crawler:
        crawl = await crawler.crawled(site.origin)
    assert (crawl.state, crawl.failure.reason) == (crawl_pb2.CRAWL_STATE_FAILED, 97)  # KNOWLEDGE_FULL
    assert len(await crawler.names()) == 3
    assert len(site.paths) < 10


async def test_a_stopped_crawl_asks_no_more_and_can_be_started_again(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/a", "/b", "/c")
    for path in ("/a", "/b", "/c"):
        site.page(path, f"Page {path}.")
    crawl = await crawler.create(site.origin)
    known = await crawler.crawls.find_visible(crawler.member, UUID(crawl.id))
    assert known
    site.gate.clear()
    site.free = 1
    work = asyncio.create_task(crawler.crawling.work(known.tenant_id, known.id, known.slice))
    async with asyncio.timeout(30):
        await site.halted.wait()
    stopped = (await crawler.stub.StopCrawl(StopCrawlRequest(crawl_id=crawl.id), **crawler.me())).crawl
    assert stopped.state == crawl_pb2.CRAWL_STATE_STOPPED
    site.gate.set()
    await work
    await crawler.index()
    assert len(site.paths) <= 3
    crawl = await crawler.again(crawl)
    assert crawl.state == crawl_pb2.CRAWL_STATE_DONE
    assert await crawler.names() == ["/", "/a", "/b", "/c"]


@pytest.mark.parametrize("with_documents", [True, False])
async def test_a_deleted_crawl_takes_its_documents_along_when_asked(
    crawler: Crawler, site: Site, with_documents: bool
) -> None:
    site.page("/", "Home.", "/a")
    site.page("/a", "Page a.")
    crawl = await crawler.crawled(site.origin)
    await crawler.stub.DeleteCrawl(DeleteCrawlRequest(crawl_id=crawl.id, with_documents=with_documents), **crawler.me())
    assert len(await crawler.all_documents()) == (0 if with_documents else 2)


async def test_a_crawl_deleted_under_way_leaves_no_document_behind(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.")
    crawl = await crawler.create(site.origin)
    known = await crawler.crawls.find_visible(crawler.member, UUID(crawl.id))
    assert known
    site.gate.clear()
    work = asyncio.create_task(crawler.crawling.work(known.tenant_id, known.id, known.slice))
    async with asyncio.timeout(30):
        await site.halted.wait()
    await crawler.stub.DeleteCrawl(DeleteCrawlRequest(crawl_id=crawl.id, with_documents=True), **crawler.me())
    site.gate.set()
    await work
    assert await crawler.all_documents() == []
