"""What a crawl reads of a real site, and what it leaves."""

import asyncio
import gzip

from parley.knowledge.v1 import crawl_pb2
from tests.documents import pdf
from tests.knowledge.crawls import Crawler, crawling
from tests.sites import Answer, Site, a_site, head

DONE, FAILED = crawl_pb2.CRAWL_STATE_DONE, crawl_pb2.CRAWL_STATE_FAILED


async def test_a_site_with_loops_is_read_once_nearest_pages_first(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/a", "b?x=1#top", "/", "mailto:x@example.com", "javascript:void(0)", "http://[/")
    site.page("/a", "Page a.", "/", "/a/../deep", "/b?x=1")
    site.page("/b?x=1", "Page b.", "/a", "./deep")
    site.page("/deep", "Deep.", "/", "/deeper")
    site.page("/deeper", "Deeper.", "/deepest")
    crawl = await crawler.crawled(site.origin, limits={"max_depth": 3})
    assert (crawl.state, crawl.counts.indexed, crawl.counts.failed) == (DONE, 5, 0)
    assert crawl.limit_reached == crawl_pb2.CRAWL_LIMIT_UNSPECIFIED
    assert site.paths[0] == "/"
    assert sorted(site.paths[1:3]) == ["/a", "/b?x=1"]
    assert site.paths[3:] == ["/deep", "/deeper"]
    assert await crawler.names() == ["/", "/a", "/b?x=1", "/deep", "/deeper"]
    [home] = [found for found in await crawler.all_documents() if found.file.source_url == f"{site.origin}/"]
    assert (home.file.filename, crawler.content(home)) == ("Home", site.pages["/"].body.encode())
    assert site.asked[1][1]["user-agent"].startswith("ParleyBot/")


async def test_every_usual_file_becomes_a_document(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/files/rules%20of%20%2Fuse.pdf", "/שלום", "/broken")
    site.pages["/files/rules%20of%20%2Fuse.pdf"] = Answer(pdf(["Rules."]), headers={"Content-Type": "text/plain"})
    wrong = "<html><title>ברוכים הבאים</title><body>שלום לכולם</body></html>".encode("cp1255")
    site.pages["/%D7%A9%D7%9C%D7%95%D7%9D"] = Answer(wrong, headers={"Content-Type": "text/html; charset=utf-8"})
    site.page("/broken", "This is unreadable.")
    crawl = await crawler.crawled(site.origin)
    assert (crawl.state, crawl.counts.indexed, crawl.counts.failed) == (DONE, 3, 1)
    names = {found.file.filename for found in await crawler.all_documents()}
    assert names == {"Home", "rules of use.pdf", "ברוכים הבאים"}
    assert (await crawler.pages(crawl))["/broken"] == ("FAILED", "DOCUMENT_CORRUPT")
    assert (await crawler.messages(crawl))["/broken"] == "It is damaged."


async def test_it_stays_on_its_site_and_outside_of_the_network(crawler: Crawler, site: Site) -> None:
    async with a_site() as other:
        other.page("/", "Secret.")
        links = [f"{other.origin}/", "/out", "/metadata", "/local", "/odd"]
        site.page("/", "Home.", *links, head=f'<link rel="canonical" href="{other.origin}/">')
        targets = [f"{other.origin}/", "http://169.254.169.254/latest", "http://localhost/", "gopher://x/"]
        for path, target in zip(links[1:], targets, strict=True):
            site.pages[path] = Answer(status=302, headers={"Location": target})
        crawl = await crawler.crawled(site.origin)
        pages = await crawler.pages(crawl)
        assert [pages[path][0] for path in links[1:]] == ["SKIPPED", "SKIPPED", "SKIPPED", "FAILED"]
        assert pages["/odd"] == ("FAILED", "URL_INVALID")
        assert "another site" in (await crawler.messages(crawl))["/out"]
        assert (other.asked, await crawler.names()) == ([], ["/"])


async def test_a_start_that_leads_elsewhere_is_followed_but_not_inside(crawler: Crawler, site: Site) -> None:
    async with a_site() as inside:
        inside.page("/", "Secret.")
        site.pages["/"] = Answer(status=301, headers={"Location": f"{inside.origin}/"})
        crawl = await crawler.crawled(site.origin)
        assert crawl.state == FAILED
        assert crawl.failure.reason == 115  # ADDRESS_NOT_ALLOWED
        assert inside.asked == []
    async with (
        a_site() as www,
        crawling(crawler.database, crawler.serve_locally, crawler.signer, site, www) as both,
    ):
        www.page("/home", "Home.", "/more", f"{site.origin}/back")
        www.page("/more", "More.")
        site.page("/back", "Back.")
        site.pages["/"] = Answer(status=301, headers={"Location": f"{www.origin}/home"})
        crawl = await both.crawled(site.origin)
        assert (crawl.state, await both.names()) == (DONE, ["/back", "/home", "/more"])


async def test_redirects_and_canonical_addresses_are_one_page(crawler: Crawler, site: Site) -> None:
    same = '<link rel="canonical" href="/article">'
    site.page("/", "Home.", "/old", "/article?print=1", "/circle", "/x", "/y", "/gone-canonical", "/many/0")
    site.pages["/old"] = Answer(status=308, headers={"Location": "article"})
    site.page("/article", "Article.", head=same)
    site.page("/article?print=1", "Article for print.", head=same)
    site.pages["/circle"] = Answer(status=302, headers={"Location": "/circle2"})
    site.pages["/circle2"] = Answer(status=302, headers={"Location": "/circle"})
    site.page("/x", "This is x.", head='<link rel="canonical" href="/y">')
    site.page("/y", "This is y.", head='<link rel="canonical" href="/x">')
    site.page("/gone-canonical", "Still here.", head='<link rel="canonical" href="/x">')
    for number in range(9):
        site.pages[f"/many/{number}"] = Answer(status=302, headers={"Location": f"/many/{number + 1}"})
    crawl = await crawler.crawled(site.origin)
    pages = await crawler.pages(crawl)
    assert [pages[path][0] for path in ("/old", "/article?print=1", "/article")] == ["SKIPPED", "SKIPPED", "INDEXED"]
    assert {pages["/x"][0], pages["/y"][0]} == {"SKIPPED", "INDEXED"}
    assert (pages["/circle"][0], pages["/circle2"][0]) == ("SKIPPED", "SKIPPED")
    assert pages["/many/5"] == ("FAILED", "PAGE_NOT_REACHABLE")
    assert "/many/6" not in site.paths
    assert site.paths.count("/article") == 1


async def test_robots_txt_is_kept(crawler: Crawler, site: Site) -> None:
    site.pages["/robots.txt"] = Answer(
        "User-agent: *\nDisallow: /\n\nUser-agent: parleybot\nDisallow: /private\nAllow: /private/but\n"
        "Disallow: /*.tmp$\nSitemap: /map.xml\nSitemap: http://169.254.169.254/map.xml\n"
    )
    listed = "".join(f"<url><loc>{site.origin}{path}</loc></url>" for path in ("/listed", "/private/2"))
    site.pages["/map.xml"] = Answer(f"<urlset>{listed}</urlset>")
    site.page("/", "Home.", "/private/1", "/private/but", "/x.tmp")
    for path in ("/private/but", "/listed"):
        site.page(path, f"Page {path}.")
    crawl = await crawler.crawled(site.origin)
    pages = await crawler.pages(crawl)
    assert await crawler.names() == ["/", "/listed", "/private/but"]
    for path in ("/private/1", "/private/2", "/x.tmp"):
        assert pages[path] == ("SKIPPED", "ROBOTS_DISALLOWED")
        assert path not in site.paths


async def test_without_an_answer_about_robots_nothing_is_read(crawler: Crawler, site: Site) -> None:
    site.pages["/robots.txt"] = Answer("Broken.", 503)
    site.page("/", "Home.")
    crawl = await crawler.crawled(site.origin)
    assert (crawl.state, site.paths) == (FAILED, [])
    assert "robots.txt" in crawl.failure.message


async def test_what_pages_ask_of_robots_is_kept(crawler: Crawler, site: Site) -> None:
    unfollowed = '<a rel="NoFollow noopener" href="/unfollowed">x</a>'
    site.page("/", f"Home.{unfollowed}", "/noindex", "/nofollow", "/header", "/none")
    site.page("/noindex", "Not kept.", "/1", head='<meta name="ROBOTS" content="NoIndex, follow">')
    site.page("/nofollow", "Kept.", "/2", head='<meta name="parleybot" content="nofollow">')
    site.page("/none", "Nothing.", "/3", head='<meta name="robots" content="none">')
    site.page("/header", "Header.", headers={"X-Robots-Tag": "otherbot: nofollow", "x-robots-tag": "noindex"})
    site.page("/1", "One.")
    crawl = await crawler.crawled(site.origin)
    assert await crawler.names() == ["/", "/1", "/nofollow"]
    pages = await crawler.pages(crawl)
    assert [pages[path] for path in ("/noindex", "/header", "/none")] == [("SKIPPED", "PAGE_NOT_INDEXABLE")] * 3
    assert not {"/2", "/3", "/unfollowed"} & pages.keys()


async def test_a_sitemap_or_an_index_of_them_is_a_start(crawler: Crawler, site: Site) -> None:
    site.pages["/index.xml"] = Answer(
        f'<?xml version="1.0"?><sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        f"<sitemap><loc>{site.origin}/one.xml.gz</loc></sitemap><sitemap><loc>{site.origin}/bomb.xml</loc></sitemap>"
        f"<sitemap><loc>http://10.0.0.1/two.xml</loc></sitemap></sitemapindex>"
    )
    urls = "".join(f"<url><loc> {site.origin}{path} </loc></url>" for path in ("/1", "/2?a=b&amp;c=d"))
    site.pages["/one.xml.gz"] = Answer(gzip.compress(f"<urlset>{urls}</urlset>".encode()))
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE urlset [<!ENTITY l0 "x">{levels}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    site.pages["/bomb.xml"] = Answer(f"{bomb}<urlset><url><loc>{site.origin}/&l11;&f;</loc></url></urlset>")
    site.page("/1", "One.", "/linked")
    site.page("/2?a=b&c=d", "Two.")
    crawl = await crawler.crawled(f"{site.origin}/index.xml", limits={"max_depth": 0})
    assert crawl.state == DONE
    assert await crawler.names() == ["/1", "/2?a=b&c=d"]
    assert not [path for path in site.paths if "passwd" in path or "xxx" in path or "root" in path]
    assert "2 addresses" in (await crawler.messages(crawl))["/one.xml.gz"]


async def test_each_cap_ends_a_crawl_and_says_so(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", *(f"/{number}" for number in range(10_000)))
    for number in range(10):
        site.page(f"/{number}", f"Page {number}. " + "x" * 20_000)
    crawl = await crawler.crawled(site.origin, limits={"max_pages": 5})
    assert (crawl.state, crawl.limit_reached) == (DONE, crawl_pb2.CRAWL_LIMIT_PAGES)
    assert (len(await crawler.pages(crawl)), len(site.paths)) == (5, 5)
    site.asked.clear()
    size = len(site.pages["/"].body)
    crawl = await crawler.crawled(site.origin, limits={"max_bytes": size + 30_000})
    assert crawl.limit_reached == crawl_pb2.CRAWL_LIMIT_BYTES
    assert crawl.state == DONE
    assert (crawl.counts.indexing, crawl.counts.waiting) == (0, 0)
    assert len(site.paths) <= 4
    assert crawl.bytes <= size + 50_000


async def test_bytes_of_pages_that_are_too_large_count(crawler: Crawler, site: Site) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(head(Content_Type="text/html"))
        while True:
            writer.write(b"<p>more" * 10_000)
            await writer.drain()

    site.page("/", "Home.", *(f"/{number}" for number in range(20)))
    site.pages |= {f"/{number}": endless for number in range(20)}
    crawl = await crawler.crawled(site.origin, limits={"max_bytes": 1_000_000})
    assert crawl.limit_reached == crawl_pb2.CRAWL_LIMIT_BYTES
    assert len(site.paths) == 3


async def test_media_are_not_fetched_and_frames_are(crawler: Crawler, site: Site) -> None:
    media = {"/a.jpg": "image/jpeg", "/b.mp4": "VIDEO/mp4", "/c.css": "text/css; charset=utf-8"}
    refresh = '<meta http-equiv="Refresh" content="0; URL=&quot;/later&quot;">'
    site.page("/", 'Home.<iframe src="/framed"></iframe>', *media, head=refresh)
    for path, kind in media.items():
        site.pages[path] = Answer("x" * 1000, headers={"Content-Type": kind})
    site.page("/framed", "Framed.")
    site.page("/later", "Later.")
    crawl = await crawler.crawled(site.origin)
    assert await crawler.names() == ["/", "/framed", "/later"]
    pages = await crawler.pages(crawl)
    assert {pages[path] for path in media} == {("SKIPPED", "UNSUPPORTED_FORMAT")}
    assert crawl.bytes == sum(len(site.pages[path].body) for path in ("/", "/framed", "/later"))


async def test_the_time_cap_holds_against_a_server_that_drips(crawler: Crawler, site: Site) -> None:
    async def drop_by_drop(writer: asyncio.StreamWriter) -> None:
        for byte in head(Content_Type="text/html") + b"<html>" + b"x" * 100_000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    site.page("/", "Home.", *(f"/slow{number}" for number in range(20)))
    site.pages |= {f"/slow{number}": drop_by_drop for number in range(20)}
    crawl = await crawler.crawled(site.origin, limits={"max_seconds": 1})
    assert (crawl.state, crawl.limit_reached) == (DONE, crawl_pb2.CRAWL_LIMIT_SECONDS)
    assert crawl.counts.waiting == 0
    assert len(site.paths) <= 5


async def test_bad_pages_are_told_and_end_nothing(crawler: Crawler, site: Site) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(head(Content_Type="text/html"))
        while True:
            writer.write(b"<p>more" * 100_000)
            await writer.drain()

    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.write(head(Content_Length="100") + b"<html>")

    site.pages |= {"/endless": endless, "/hang-up": hang_up}
    site.pages["/bomb"] = Answer(gzip.compress(bytes(200_000_000), 1), headers={"Content-Encoding": "gzip"})
    site.pages["/500"] = Answer("Oops.", 500)
    site.pages["/403"] = Answer("No.", 403)
    site.pages["/empty"] = Answer("")
    deep = "<div>" * 200_000
    site.page("/deep", f"Deep. {deep}", "/good")
    bad = [*site.pages, "/404"]
    site.page("/", "Home.", *bad, "/good")
    site.page("/good", "Good.")
    crawl = await crawler.crawled(site.origin)
    pages = await crawler.pages(crawl)
    assert crawl.state == DONE
    assert {pages["/endless"], pages["/bomb"]} == {("FAILED", "PAGE_TOO_LARGE")}
    for path in ("/hang-up", "/500", "/403", "/404"):
        assert pages[path] == ("FAILED", "PAGE_NOT_REACHABLE"), path
    assert pages["/empty"] == ("FAILED", "DOCUMENT_EMPTY")
    assert pages["/good"][0] == "INDEXED"
    messages = await crawler.messages(crawl)
    assert all(messages[path] for path in bad if path != "/deep")


async def test_a_page_that_is_away_for_a_moment_is_asked_again(crawler: Crawler, site: Site) -> None:
    async def busy(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        site.page("/busy", "Back again.")

    site.page("/", "Home.", "/busy", "/broken", "/a")
    site.page("/a", "Page a.")
    site.pages |= {"/busy": busy, "/broken": Answer("Oops.", 500)}
    crawl = await crawler.crawled(site.origin)
    assert await crawler.names() == ["/", "/a", "/busy"]
    assert (await crawler.pages(crawl))["/broken"] == ("FAILED", "PAGE_NOT_REACHABLE")
    assert "/a" in site.paths[3:5]  # not after the others' last try
    assert (site.paths.count("/busy"), site.paths.count("/broken")) == (2, 3)


async def test_a_crawl_of_which_nothing_can_be_read_says_why(crawler: Crawler, site: Site) -> None:
    site.pages["/robots.txt"] = Answer("User-agent: *\nDisallow: /\n")
    crawl = await crawler.crawled(site.origin)
    assert (crawl.state, crawl.failure.reason) == (FAILED, 116)  # ROBOTS_DISALLOWED
    assert site.paths == []


async def test_the_same_content_is_one_document(crawler: Crawler, site: Site) -> None:
    site.page("/", "Home.", "/index.html")
    site.pages["/index.html"] = site.pages["/"]
    crawl = await crawler.crawled(site.origin)
    assert sorted((await crawler.pages(crawl)).values()) == [("INDEXED", ""), ("SKIPPED", "DOCUMENT_DUPLICATE")]
    assert len(await crawler.all_documents()) == 1
    again = await crawler.crawled(site.origin, limits={"max_depth": 0})  # all of it is there already
    assert (again.state, again.counts.skipped) == (DONE, 1)
