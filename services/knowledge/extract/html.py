"""HTML, by lxml: what a reader of the page sees, without navigation, scripts and hidden parts.

Where a page marks its main part, only that is read.
"""

import re
from collections.abc import Iterator

from lxml import etree, html

from services.knowledge.extract.sections import Read, Sections
from services.knowledge.passages import Block

_BEGIN = re.compile(
    r"(<\?xml[^>]*>|<!--.*?-->|\s)*<(!doctype html|html|head|body|title|meta|div|article|h1|p|table)\b", re.S
)
_DROPPED = frozenset(
    [
        "script",
        "style",
        "nav",
        "noscript",
        "template",
        "head",
        "iframe",
        "object",
        "embed",
        "svg",
        "math",
        "canvas",
        "audio",
        "video",
        "button",
        "select",
        "datalist",
        "input",
        "textarea",
        "dialog",
    ]
)
_INLINE = frozenset(
    [
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "img",
        "ins",
        "kbd",
        "label",
        "mark",
        "q",
        "rp",
        "rt",
        "ruby",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "time",
        "tt",
        "u",
        "var",
        "wbr",
    ]
)
_DROPPED_ROLES = frozenset(("navigation", "search", "menu", "menubar"))
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_MOST_SPANNED = 1000
_LINE_BREAK = "\u2028"
_SPACES = re.compile(rf"[^\S{_LINE_BREAK}]+")


def looks_like(begin: str) -> bool:
    """Whether a text that begins so, in lower case, is HTML."""
    return _BEGIN.match(begin) is not None


def read(text: str) -> Read:
    """The blocks of a page or of a piece of one; its title is the outermost heading if it has no other."""
    # Parsed from bytes of a known encoding: whatever the page says of its own, it has been decoded already.
    parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    try:
        page = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError):  # nothing to show, such as comments alone
        return Read("text/html", ())
    return Read("text/html", _Page().blocks(page))


class _Page:
    """Walks a page and gathers inline text until a block ends."""

    def __init__(self) -> None:
        self._sections = Sections()
        self._gathered: list[str] = []
        self._spans: dict[int, tuple[int, str]] = {}  # of the table: column to rows left and the text of its cell

    def blocks(self, page: etree._Element) -> Iterator[Block]:
        title = page.findtext(".//head/title") or ""
        if page.find(".//h1") is None:
            yield from self._sections.heading(0, title)
        mains = page.findall(".//main")
        yield from self._walk(mains[0] if len(mains) == 1 and _shown(mains[0]).strip() else page)
        yield from self._flush()
        yield from self._sections.end()

    def _walk(self, element: etree._Element) -> Iterator[Block]:
        tag = element.tag
        if _is_dropped(element):
            return
        if tag in _HEADINGS:
            yield from self._flush()
            yield from self._sections.heading(_HEADINGS[tag], _spaced(_shown(element)))
        elif tag == "pre":
            yield from self._flush()
            yield from self._sections.text(_shown(element))
        elif tag == "tr" and element.find(".//table") is None:
            yield from self._flush()
            yield from self._sections.text(" | ".join(cell for cell in self._row(element) if cell))
        elif tag in _INLINE or tag == "br":
            self._gathered.append(_mark(element))
            yield from self._walk_inside(element)
        else:
            yield from self._flush()
            if tag == "table":
                self._spans.clear()
            yield from self._walk_inside(element)
            yield from self._flush()

    def _walk_inside(self, element: etree._Element) -> Iterator[Block]:
        self._gathered.append(element.text or "")
        for child in element:
            yield from self._walk(child)
            self._gathered.append(child.tail or "")

    def _row(self, row: etree._Element) -> Iterator[str]:
        """The cells of a row, with those from rows above that reach into it: without them it would say half."""
        column = 0
        for cell in row:
            yield from (reaching := self._reaching(column))
            column += len(reaching)
            text = _spaced(_shown(cell))
            if (rows := _span(cell, "rowspan")) > 1:
                self._spans[column] = (rows - 1, text)
            column += _span(cell, "colspan")
            yield text
        yield from self._reaching(column)

    def _reaching(self, column: int) -> list[str]:
        """The texts of the cells from above, from this column on."""
        texts = []
        while column in self._spans:
            rows, text = self._spans.pop(column)
            if rows > 1:
                self._spans[column] = (rows - 1, text)
            texts.append(text)
            column += 1
        return texts

    def _flush(self) -> Iterator[Block]:
        text = _spaced("".join(self._gathered))
        self._gathered.clear()
        yield from self._sections.text(text)


def _span(cell: etree._Element, which: str) -> int:
    value = cell.get(which, "")
    return min(int(value), _MOST_SPANNED) if value.isascii() and value.isdecimal() and value != "0" else 1


def _is_dropped(element: etree._Element) -> bool:
    return (
        not isinstance(element.tag, str)
        or element.tag in _DROPPED
        or "hidden" in element.attrib
        or element.get("role") in _DROPPED_ROLES
        or _HIDDEN.search(element.get("style", "")) is not None
    )


def _shown(element: etree._Element) -> str:
    """All text in an element, on one line but for line breaks."""
    if _is_dropped(element):
        return ""
    parts = [_mark(element), element.text or ""]
    for child in element:
        parts += [_shown(child), child.tail or ""]
    return "".join(parts) if element.tag in _INLINE or element.tag == "br" else f" {''.join(parts)} "


def _mark(element: etree._Element) -> str:
    if element.tag == "br":
        return _LINE_BREAK
    return element.get("alt", "") if element.tag == "img" else ""


def _spaced(text: str) -> str:
    return _SPACES.sub(" ", text).strip()
