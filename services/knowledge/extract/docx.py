"""DOCX: the parts that hold text are read from the archive, each within a limit; nothing else is unpacked.

Names are compared without their namespace, so that strict and transitional files read the same.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping

from lxml import etree

from services.knowledge.extract.sections import Read, Sections
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Block
from services.shared.errors import Reason

CONTENT_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_MAX_PART_BYTES = 64 * 1024 * 1024
_MAIN = re.compile(r"word/document\d*\.xml")
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_STYLES = "word/styles.xml"
_HEADING_NAME = re.compile(r"heading (\d)", re.I)
_NOT_INLINE = frozenset(("pPr", "rPr", "txbxContent", "Fallback", "del", "moveFrom"))
_CORRUPT = "The file can't be read: it is damaged or cut off. Save it again and upload it."
_OTHERS = {"ppt/": "PPTX", "xl/": "XLSX", "META-INF/container.xml": "EPUB", "content.xml": "OpenDocument"}


def read(content: bytes) -> Read:
    """The paragraphs, tables and notes of a document. Raises Unreadable."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            main = next(filter(_MAIN.fullmatch, names), None)
            if main is None:
                raise _unsupported(names)
            levels = _heading_levels(_part(archive, _STYLES)) if _STYLES in names else {}
            parts = [_part(archive, name) for name in (main, *_NOTES) if name in names]
    except (zipfile.BadZipFile, zipfile.LargeZipFile, etree.XMLSyntaxError, EOFError, OSError, ValueError) as error:
        raise Unreadable(Reason.DOCUMENT_CORRUPT, _CORRUPT) from error
    except NotImplementedError as error:  # an archive feature that no Office program writes
        raise Unreadable(Reason.DOCUMENT_CORRUPT, _CORRUPT) from error
    except RuntimeError as error:  # zipfile: encrypted member
        message = "The file is protected by a password: remove the protection and upload it again."
        raise Unreadable(Reason.DOCUMENT_ENCRYPTED, message) from error
    return Read(CONTENT_TYPE, _Document(levels).blocks(parts))


def _part(archive: zipfile.ZipFile, name: str) -> etree._Element:
    with archive.open(name) as file:
        part = file.read(_MAX_PART_BYTES + 1)
    if len(part) > _MAX_PART_BYTES:
        message = "Unpacked, the file is larger than a document may be: split it and upload the parts."
        raise Unreadable(Reason.EXTRACTION_LIMIT, message)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    return etree.fromstring(part, parser)


def _heading_levels(styles: etree._Element) -> Mapping[str, int]:
    """Outline level by style id, 0 for titles, 1 for "heading 1"; styles inherit it."""
    parents: dict[str, str] = {}
    levels: dict[str, int] = {}
    for style in _children(styles, "style"):
        style_id = _value(style, "styleId")
        name = _value(next(_children(style, "name"), None), "val")
        parents[style_id] = _value(next(_children(style, "basedOn"), None), "val")
        if name.lower() == "title":
            levels[style_id] = 0
        elif named := _HEADING_NAME.fullmatch(name):
            levels[style_id] = int(named[1])
        elif (level := _outline_level(next(_children(style, "pPr"), None))) is not None:
            levels[style_id] = level
    for style_id in parents:
        ancestor, steps = style_id, 0
        while ancestor and ancestor not in levels and steps < 20:
            ancestor, steps = parents.get(ancestor, ""), steps + 1
        if ancestor in levels:
            levels[style_id] = levels[ancestor]
    return levels


class _Document:
    """Walks the parts of a document in reading order."""

    def __init__(self, levels: Mapping[str, int]) -> None:
        self._levels = levels
        self._sections = Sections()

    def blocks(self, parts: list[etree._Element]) -> Iterator[Block]:
        for part in parts:
            yield from self._walk(part)
        yield from self._sections.end()

    def _walk(self, parent: etree._Element) -> Iterator[Block]:
        for element in parent:
            match _name(element):
                case "p":
                    yield from self._paragraph(element)
                case "tbl":
                    for row in _descendants(element, "tr"):
                        cells = (" ".join(_text(cell).split()) for cell in _children(row, "tc"))
                        yield from self._sections.text(" | ".join(cell for cell in cells if cell))
                case "Fallback" | "sectPr" | "":
                    pass
                case _:
                    yield from self._walk(element)

    def _paragraph(self, paragraph: etree._Element) -> Iterator[Block]:
        text = _text(paragraph)
        if (level := self._level(paragraph)) is None:
            yield from self._sections.text(text)
        else:
            yield from self._sections.heading(level, " ".join(text.split()))
        for box in _descendants(paragraph, "txbxContent"):
            yield from self._walk(box)

    def _level(self, paragraph: etree._Element) -> int | None:
        properties = next(_children(paragraph, "pPr"), None)
        if properties is None:
            return None
        if (level := _outline_level(properties)) is not None:
            return level
        return self._levels.get(_value(next(_children(properties, "pStyle"), None), "val"))


def _text(element: etree._Element) -> str:
    """What a paragraph or cell says, without its text boxes and without what was deleted."""
    match _name(element):
        case "t":
            return element.text or ""
        case "tab":
            return "\t"
        case "br" | "cr":
            return "\n"
        case "noBreakHyphen":
            return "-"
    inside = "".join(_text(child) for child in element if _name(child) not in _NOT_INLINE)
    return f"{inside} " if _name(element) == "p" else inside


def _outline_level(properties: etree._Element | None) -> int | None:
    """1 for the outermost level; None for body text."""
    if properties is None:
        return None
    value = _value(next(_children(properties, "outlineLvl"), None), "val")
    return int(value) + 1 if value in set("012345678") else None


def _name(element: etree._Element) -> str:
    """The tag without its namespace; empty for what is no element."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _children(element: etree._Element, name: str) -> Iterator[etree._Element]:
    return (child for child in element if _name(child) == name)


def _descendants(element: etree._Element, name: str) -> Iterator[etree._Element]:
    """The nearest elements of this name, not those inside of them."""
    for child in element:
        if _name(child) == name:
            yield child
        elif _name(child) != "Fallback":
            yield from _descendants(child, name)


def _value(element: etree._Element | None, attribute: str) -> str:
    if element is None:
        return ""
    return next((value for name, value in element.items() if etree.QName(name).localname == attribute), "")


def _unsupported(names: list[str]) -> Unreadable:
    kinds = (kind for begin, kind in _OTHERS.items() if any(name.startswith(begin) for name in names))
    message = f"The file is {next(kinds, 'an archive')}. Upload it as PDF, DOCX, HTML, Markdown or text."
    return Unreadable(Reason.UNSUPPORTED_FORMAT, message)
