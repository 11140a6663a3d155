"""OpenDocument (ODT, ODS, ODP, and their flat form): headings, paragraphs, lists, tables, notes in reading order.

A slide, and a sheet of a spreadsheet, is a page and its name a heading.
"""

from collections.abc import Iterable, Iterator

from lxml import etree

from services.knowledge.extract import tables
from services.knowledge.extract.archive import Archive
from services.knowledge.extract.refusals import corrupt, encrypted
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.extract.xml import children, descendants, find_child, name, value
from services.knowledge.passages import Block

TYPE = "application/vnd.oasis.opendocument."
MAIN = "content.xml"
_MANIFEST = "META-INF/manifest.xml"
_SKIPPED = frozenset(
    ("tracked-changes", "forms", "settings", "annotation-end", "sequence-decls", "title", "desc", "", "script")
)
_PAGES = {"presentation": "page", "spreadsheet": "table"}
_NAMESPACE = "urn:oasis:names:tc:opendocument:"
_MAX_SPACES = 100


def read(archive: Archive) -> Read:
    """What a packed document says. Raises Unreadable."""
    manifest = archive.find_xml(_MANIFEST)
    if manifest is not None and next(descendants(manifest, "encryption-data"), None) is not None:
        raise encrypted()
    return read_flat(archive.xml(MAIN))


def is_flat(root: etree._Element) -> bool:
    """Whether an XML file is a document in one piece."""
    return name(root) == "document" and _NAMESPACE in root.tag


def read_flat(root: etree._Element) -> Read:
    """What a document of one XML file says. Raises Unreadable."""
    body = find_child(root, "body")
    if body is None or not len(body):
        raise corrupt()
    document = body[0]
    kind = name(document)
    pages = sum(1 for _ in children(document, _PAGES[kind])) if kind in _PAGES else 0
    return Read(TYPE + kind, _Document(has_sheets=kind == "spreadsheet").blocks(document), pages)


class _Document:
    """Walks a document and counts its pages."""

    def __init__(self, *, has_sheets: bool) -> None:
        self._sections = Sections()
        self._has_sheets = has_sheets
        self._page: int | None = None

    def blocks(self, document: etree._Element) -> Iterator[Block]:
        yield from self._walk(document)
        yield from self._sections.end()

    def _walk(self, parent: Iterable[etree._Element]) -> Iterator[Block]:
        for element in parent:
            match name(element):
                case "h":
                    level = value(element, "outline-level")
                    yield from self._sections.heading(
                        int(level) if level.isdecimal() else 1, _line(element), self._page
                    )
                case "p":
                    yield from self._paragraph(element)
                case "page":
                    yield from self._slide(element)
                case "table" if self._has_sheets:
                    yield from self._sheet(element)
                case "table":
                    for row in _rows(element):
                        yield from self._sections.text(tables.line(row), self._page)
                case tag if tag not in _SKIPPED:
                    yield from self._walk(element)

    def _paragraph(self, paragraph: etree._Element) -> Iterator[Block]:
        yield from self._sections.text(_text(paragraph), self._page)
        for inside in ("note-body", "text-box", "annotation"):
            for element in descendants(paragraph, inside):
                yield from self._walk(element)

    def _slide(self, slide: etree._Element) -> Iterator[Block]:
        yield from self._sections.end()
        self._page = (self._page or 0) + 1
        yield from self._sections.leave(0)
        frames = list(slide)
        for frame in frames:
            if value(frame, "class") == "title":
                yield from self._sections.heading(1, _line(frame), self._page)
        for frame in frames:
            if value(frame, "class") != "title":
                yield from self._walk((frame,))

    def _sheet(self, sheet: etree._Element) -> Iterator[Block]:
        self._page = (self._page or 0) + 1
        yield from self._sections.heading(1, value(sheet, "name"), self._page)
        for region in tables.regions(list(_rows(sheet))):
            yield from tables.blocks(region, self._sections, self._page, level=2)


def _rows(table: etree._Element) -> Iterator[list[str]]:
    for row in descendants(table, "table-row"):
        yield [_line(cell) for cell in row if name(cell) in ("table-cell", "covered-table-cell")]


def _line(element: etree._Element) -> str:
    return " ".join(_text(element).split())


def _text(element: etree._Element) -> str:
    """What stands in a paragraph or cell, without its notes and boxes."""
    parts = [element.text or ""]
    for child in element:
        match name(child):
            case "s":
                count = value(child, "c")
                parts.append(" " * min(int(count) if count.isdecimal() else 1, _MAX_SPACES))
            case "tab":
                parts.append("\t")
            case "line-break":
                parts.append("\n")
            case "note" | "annotation" | "text-box" | "title" | "desc" | "":
                pass
            case "p" | "h":
                parts.append(f" {_text(child)} ")
            case _:
                parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)
