"""EPUB: the chapters in reading order, each an HTML page below the book's title."""

import posixpath
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote

from lxml import etree

from services.knowledge.extract import html
from services.knowledge.extract.archive import Archive
from services.knowledge.extract.charset import decode
from services.knowledge.extract.refusals import corrupt, encrypted
from services.knowledge.extract.sections import Read
from services.knowledge.extract.xml import children, descendants, find_child, value
from services.knowledge.passages import Block

CONTENT_TYPE = "application/epub+zip"
MAIN = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset(("application/xhtml+xml", "text/html", "application/x-dtbook+xml"))


def read(archive: Archive) -> Read:
    """The chapters of a book. Raises Unreadable."""
    package = next((value(root, "full-path") for root in descendants(archive.xml(MAIN), "rootfile")), "")
    if package not in archive.names:
        raise corrupt()
    book = archive.xml(package)
    chapters = [part for part in _chapters(book, posixpath.dirname(package)) if part in archive.names]
    if not chapters:
        raise corrupt()
    locked = archive.find_xml(_ENCRYPTION)
    # Fonts are often scrambled in books that anybody may read; chapters are not.
    if locked is not None and any(unquote(value(one, "URI")) in chapters for one in locked.iter()):
        raise encrypted()
    title = next(descendants(book, "title"), None)
    return Read(CONTENT_TYPE, _blocks(archive, chapters, "" if title is None else title.text or ""))


def _chapters(book: etree._Element, folder: str) -> Iterator[str]:
    files = {value(item, "id"): item for item in children(find_child(book, "manifest"), "item")}
    for place in children(find_child(book, "spine"), "itemref"):
        item = files.get(value(place, "idref"))
        if value(item, "media-type") in _PAGES:
            yield posixpath.normpath(posixpath.join(folder, unquote(value(item, "href"))))


def _blocks(archive: Archive, chapters: list[str], title: str) -> Iterator[Block]:
    for chapter in chapters:
        for block in html.read(decode(archive.part(chapter)) or "").blocks:
            above = (title,) if title and block.headings[:1] != (title,) else ()
            yield replace(block, headings=(*above, *block.headings))
