"""Reads what a crawl follows in one page or sitemap:
`python -m services.knowledge.crawl.links MEMORY_BYTES CPU_S WALL_S URL SITES MOST_LINKS < CONTENT`.

It runs in a process of its own, which limits itself and gives up what it does not need before it reads the first byte,
and writes one line of JSON (reading.py knows it). What is neither HTML nor a sitemap has no links.
"""

import json
import os
import re
import resource
import signal
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from io import BytesIO

from lxml import etree, html

from services.knowledge.extract import sandbox
from services.knowledge.extract.charset import decode
from services.knowledge.extract.html import looks_like
from services.shared.errors import Invalid
from services.shared.outbound.url import Url, join, parse

MAX_SITEMAP_BYTES = 32 * 1024 * 1024  # unpacked
_MAX_OUTPUT_BYTES = 64 * 1024 * 1024
_OUT_OF_MEMORY = 3
_GZIP = b"\x1f\x8b"
_MOST_LOOKED_AT = 20  # times as many references as links are wanted: most pages repeat themselves
_TITLE_CHARACTERS = 200
_REFRESH = re.compile(r"url\s*=\s*['\"]?([^'\">]+)", re.IGNORECASE)
_SITEMAPS = {"urlset": "pages", "sitemapindex": "sitemaps"}


def read(content: bytes, url: Url, sites: Collection[str], most: int) -> dict[str, object]:
    """The line to be written; only addresses of these sites."""
    if content.startswith(_GZIP):
        content = _unpacked(content)
    begin = content[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if begin.startswith(b"<?xml") or b"<urlset" in begin or b"<sitemapindex" in begin:
        found = _sitemap(content, sites, most)
        if found is not None:
            return found
    text = decode(content)
    if text is None or not looks_like(text[:4096].lstrip().lower()):
        return {"kind": "other"}
    return _page(text, url, sites, most)


def _unpacked(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(content, MAX_SITEMAP_BYTES)
    except zlib.error:
        return b""


def _sitemap(content: bytes, sites: Collection[str], most: int) -> dict[str, object] | None:
    """None if it is no sitemap. A broken one gives what stands before the break."""
    kind, found = "", list[str]()
    parsed = etree.iterparse(
        BytesIO(content), events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False,
        huge_tree=False,
    )  # fmt: skip
    try:
        for event, element in parsed:
            name = etree.QName(element).localname if isinstance(element.tag, str) else ""
            if event == "start" and not kind:
                kind = _SITEMAPS.get(name, "")
                if not kind:
                    return None
            elif event == "end" and name in ("url", "sitemap"):
                found += [child.text or "" for child in element if str(child.tag).endswith("loc")][:1]
                element.clear()
                while element.getprevious() is not None:
                    del element.getparent()[0]
                if len(found) >= most * _MOST_LOOKED_AT:
                    break
    except etree.XMLSyntaxError:
        if not kind:
            return None
    return {"kind": "sitemap", kind: _normal(found, parse, sites, most)}


def _page(text: str, url: Url, sites: Collection[str], most: int) -> dict[str, object]:
    parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    try:
        page = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError):
        return {"kind": "other"}
    base = _base(page, url)
    canonical = [link.get("href", "") for link in page.iter("link") if "canonical" in _words(link.get("rel"))]
    metas = [(meta.get("name", "").strip().lower(), meta.get("content", "")) for meta in page.iter("meta")]
    title = " ".join((page.findtext(".//title") or "").split())
    return {
        "kind": "page",
        "title": title[:_TITLE_CHARACTERS],
        "canonical": next(iter(_normal(canonical, lambda text: join(base, text), sites, 1)), ""),
        "robots": [content for name, content in metas if name in ("robots", "parleybot")],
        "pages": _normal(_references(page), lambda text: join(base, text), sites, most),
    }


def _base(page: etree._Element, url: Url) -> Url:
    for element in page.iter("base"):
        try:
            return join(url, element.get("href", ""))
        except Invalid:
            break
    return url


def _references(page: etree._Element) -> Iterator[str]:
    for link in page.iter("a", "area", "frame", "iframe"):
        reference = link.get("href") or link.get("src") or ""
        if reference and not reference.startswith("#") and "nofollow" not in _words(link.get("rel")):
            yield reference
    for meta in page.iter("meta"):
        if meta.get("http-equiv", "").lower() == "refresh" and (found := _REFRESH.search(meta.get("content", ""))):
            yield found[1]


def _normal(references: Iterable[str], read_one: Callable[[str], Url], sites: Collection[str], most: int) -> list[str]:
    """Each address of the sites once, as it is normally spelt; what is none is left out."""
    found: dict[str, None] = {}
    for _, reference in zip(range(most * _MOST_LOOKED_AT), references, strict=False):
        try:
            address = read_one(reference)
        except Invalid:
            continue
        if address.site in sites:
            found[str(address)] = None
        if len(found) == most:
            break
    return list(found)


def _words(value: str | None) -> list[str]:
    return (value or "").lower().split()


def _main(memory_bytes: int, cpu_s: int, wall_s: float, url: str, sites: str, most: int) -> None:
    for what, most_of_it in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, _MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most_of_it, most_of_it))
    signal.setitimer(signal.ITIMER_REAL, wall_s)  # should the service die, this still ends
    sandbox.confine(may_start_processes=False)
    print(json.dumps(read(sys.stdin.buffer.read(), parse(url), sites.split(), most)))


if __name__ == "__main__":
    try:
        _main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5], int(sys.argv[6]))
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)  # at once: tidying up takes memory, too
