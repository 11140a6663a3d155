"""DOCX: paragraphs, tables, text boxes, charts and notes in reading order."""

import re
from collections.abc import Iterable, Iterator, Mapping

from lxml import etree

from services.knowledge.extract import charts, tables
from services.knowledge.extract.archive import Archive
from services.knowledge.extract.refusals import corrupt
from services.knowledge.extract.relations import relations
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.extract.xml import children, descendants, find_child, name, value
from services.knowledge.passages import Block

CONTENT_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_MAIN = re.compile(r"word/document\d*\.xml")
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_STYLES = "word/styles.xml"
_HEADING_NAME = re.compile(r"heading (\d)", re.I)
_MOST_SPANNED = 1000
_NOT_INLINE = frozenset(("pPr", "rPr", "txbxContent", "Fallback", "del", "moveFrom"))


def find_main(names: Iterable[str]) -> str | None:
    """The part that makes an archive a DOCX."""
    return next(filter(_MAIN.fullmatch, names), None)


def read(archive: Archive) -> Read:
    """The paragraphs, tables and notes of a document. Raises Unreadable."""
    main = find_main(archive.names)
    if main is None:
        raise corrupt()
    styles = archive.find_xml(_STYLES)
    levels = {} if styles is None else _heading_levels(styles)
    parts = [archive.xml(part) for part in (main, *_NOTES) if part in archive.names]
    shown = {one.id: archive.xml(one.target) for one in relations(archive, main) if one.kind == "chart"}
    return Read(CONTENT_TYPE, _Document(levels, shown).blocks(parts))


def _heading_levels(styles: etree._Element) -> Mapping[str, int]:
    """Outline level by style id, 0 for titles, 1 for "heading 1"; styles inherit it."""
    parents: dict[str, str] = {}
    levels: dict[str, int] = {}
    for style in children(styles, "style"):
        style_id = value(style, "styleId")
        style_name = value(find_child(style, "name"), "val")
        parents[style_id] = value(find_child(style, "basedOn"), "val")
        if style_name.lower() == "title":
            levels[style_id] = 0
        elif named := _HEADING_NAME.fullmatch(style_name):
            levels[style_id] = int(named[1])
        elif (level := _outline_level(find_child(style, "pPr"))) is not None:
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

    def __init__(self, levels: Mapping[str, int], charts_by_id: Mapping[str, etree._Element]) -> None:
        self._levels = levels
        self._charts = charts_by_id
        self._sections = Sections()

    def blocks(self, parts: list[etree._Element]) -> Iterator[Block]:
        for part in parts:
            yield from self._walk(part)
        yield from self._sections.end()

    def _walk(self, parent: etree._Element) -> Iterator[Block]:
        for element in parent:
            match name(element):
                case "p":
                    yield from self._paragraph(element)
                case "tbl":
                    yield from self._table(element)
                case "Fallback" | "sectPr" | "":
                    pass
                case _:
                    yield from self._walk(element)

    def _table(self, table: etree._Element) -> Iterator[Block]:
        above: list[str] = []
        for row in descendants(table, "tr"):
            cells: list[str] = []
            reaching: list[int] = []
            for cell in children(row, "tc"):
                properties = find_child(cell, "tcPr")
                if (merged := find_child(properties, "vMerge")) is not None and value(merged, "val") != "restart":
                    reaching.append(len(cells))
                wide = value(find_child(properties, "gridSpan"), "val")
                empty = min(int(wide), _MOST_SPANNED) - 1 if wide.isascii() and wide.isdecimal() else 0
                cells += [" ".join(_text(cell).split()), *[""] * empty]
            above = tables.filled(cells, above, reaching)
            yield from self._sections.text(" | ".join(cell for cell in above if cell))

    def _paragraph(self, paragraph: etree._Element) -> Iterator[Block]:
        text = _text(paragraph)
        if (level := self._level(paragraph)) is None:
            yield from self._sections.text(text)
        else:
            yield from self._sections.heading(level, " ".join(text.split()))
        for box in descendants(paragraph, "txbxContent"):
            yield from self._walk(box)
        for place in descendants(paragraph, "chart"):
            if (chart := self._charts.get(value(place, "id"))) is not None:
                for row in charts.rows(chart):
                    yield from self._sections.text(row)

    def _level(self, paragraph: etree._Element) -> int | None:
        properties = find_child(paragraph, "pPr")
        if properties is None:
            return None
        if (level := _outline_level(properties)) is not None:
            return level
        return self._levels.get(value(find_child(properties, "pStyle"), "val"))


def _text(element: etree._Element) -> str:
    """What a paragraph or cell says, without its text boxes and without what was deleted."""
    match name(element):
        case "t":
            return element.text or ""
        case "tab":
            return "\t"
        case "br" | "cr":
            return "\n"
        case "noBreakHyphen":
            return "-"
        case "r" if _is_hidden(element):
            return ""
    inside = "".join(_text(child) for child in element if name(child) not in _NOT_INLINE)
    return f"{inside} " if name(element) == "p" else inside


def _is_hidden(run: etree._Element) -> bool:
    hidden = find_child(find_child(run, "rPr"), "vanish")
    return hidden is not None and value(hidden, "val") not in ("0", "false", "off")


def _outline_level(properties: etree._Element | None) -> int | None:
    """1 for the outermost level; None for body text."""
    if properties is None:
        return None
    level = value(find_child(properties, "outlineLvl"), "val")
    return int(level) + 1 if level in set("012345678") else None
