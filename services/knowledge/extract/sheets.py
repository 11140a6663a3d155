"""Spreadsheets (XLSX, XLSB, XLS), by calamine: each sheet is a page and a heading; its tables, then its comments.

Calamine unpacks by itself, so the parts of an archive are unpacked here first, within the limits.
"""

import io
from collections.abc import Collection, Iterator

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, PasswordError

from services.knowledge.extract import tables
from services.knowledge.extract.archive import Archive
from services.knowledge.extract.refusals import corrupt, encrypted
from services.knowledge.extract.relations import relations
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.extract.xml import children, descendants, find_child, value
from services.knowledge.passages import Block

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
XLSB = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
XLS = "application/vnd.ms-excel"
MAIN = "xl/workbook.xml"
_BINARY_MAIN = "xl/workbook.bin"
_STAND_IN = "[Threaded comment]"  # a note for programs that know no conversations


def is_workbook(names: Collection[str]) -> bool:
    """Whether an archive with these parts is an XLSX or XLSB."""
    return MAIN in names or _BINARY_MAIN in names


def read(content: bytes, archive: Archive) -> Read:
    """The sheets of an XLSX or XLSB. Raises Unreadable."""
    for part in archive.names:
        if part.endswith((".xml", ".bin", ".rels")):
            archive.part(part)
    return _read(content, XLSX if MAIN in archive.names else XLSB, _comments(archive))


def read_old(content: bytes) -> Read:
    """The sheets of an XLS. Raises Unreadable."""
    return _read(content, XLS, {})


def _read(content: bytes, content_type: str, comments: dict[str, list[str]]) -> Read:
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
    except PasswordError as error:
        raise encrypted() from error
    except CalamineError as error:
        raise corrupt() from error
    return Read(content_type, _blocks(workbook, comments), len(workbook.sheet_names))


def _blocks(workbook: CalamineWorkbook, comments: dict[str, list[str]]) -> Iterator[Block]:
    """Raises Unreadable if no sheet can be read; one that can't be, such as one of charts alone, has no rows."""
    broken = 0
    for page, name in enumerate(workbook.sheet_names, start=1):
        sections = Sections()
        yield from sections.heading(1, name, page)
        try:
            rows = _rows(workbook.get_sheet_by_name(name))
        except CalamineError:
            broken += 1
            rows = []
        for region in tables.regions(rows):
            yield from tables.blocks(region, sections, page, level=2)
        for comment in comments.get(name, ()):
            yield from sections.text(comment, page)
    if workbook.sheet_names and broken == len(workbook.sheet_names):
        raise corrupt()


def _rows(sheet: CalamineSheet) -> list[tables.Row]:
    return [[_shown(cell) for cell in row] for row in sheet.iter_rows()]


def _shown(cell: object) -> str:
    return f"{cell:.15g}" if isinstance(cell, float) else str(cell)  # 4.4 is kept as 4.4000000000000004


def _comments(archive: Archive) -> dict[str, list[str]]:
    """What people noted beside the cells, by sheet: notes, then conversations."""
    parts = {relation.id: relation.target for relation in relations(archive, MAIN)}
    found: dict[str, list[str]] = {}
    for sheet in children(find_child(archive.find_xml(MAIN), "sheets"), "sheet"):
        part = parts.get(value(sheet, "id"), "")
        related = relations(archive, part) if part else []
        notes = (one for each in related if each.kind == "comments" for one in _texts(archive, each.target, "comment"))
        threads = (
            one for each in related if each.kind == "threadedComment" for one in _texts(archive, each.target, "text")
        )
        found[value(sheet, "name")] = [*(note for note in notes if not note.startswith(_STAND_IN)), *threads]
    return found


def _texts(archive: Archive, part: str, tag: str) -> list[str]:
    return ["".join(element.itertext()) for element in descendants(archive.xml(part), tag)]
