"""Rows of cells as text. A table's first row, where it names the columns, is the heading of all others: a passage from
the middle of a long table still says what its cells are.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from services.knowledge.extract.sections import Sections
from services.knowledge.passages import MAX_HEADING_CHARACTERS, Block

Row = Sequence[str]
NAMED_ROWS = 3  # of a table with column names, at least

_GROUP_CHARACTERS = 200


def line(cells: Row) -> str:
    """The cells of a row; without those that are empty at its end."""
    joined = " | ".join(" ".join(cell.split()) for cell in cells)
    return joined.rstrip(" |").strip() if any(cells) else ""


def has_header(rows: Sequence[Row]) -> bool:
    """Whether the first row names the columns: full, different, in words, short enough for a heading."""
    if len(rows) < NAMED_ROWS or len(rows[0]) < 2 or len(line(rows[0])) > MAX_HEADING_CHARACTERS:
        return False
    names = [cell.strip() for cell in rows[0]]
    return all(names) and len(set(names)) == len(names) and not any(map(_is_number, names))


def filled(row: Row, above: Row, reaching: Collection[int]) -> list[str]:
    """A row with the cells from above that reach into it, by column: without them it would say half."""
    return [above[column] if column in reaching and column < len(above) else cell for column, cell in enumerate(row)]


def blocks(rows: Sequence[Row], sections: Sections, page: int | None, level: int) -> Iterator[Block]:
    """A table below the headings so far; the names of its columns become the one of `level`."""
    named = has_header(rows)
    if named:
        yield from sections.heading(level, line(rows[0]), page)
    else:
        yield from sections.leave(level)
    for few in grouped(rows[named:]):
        yield from sections.text(few, page)


def grouped(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a few rows at once: of a million rows, each as a block of its own would take too long to cut."""
    few: list[str] = []
    characters = 0
    for row in rows:
        few.append(line(row))
        characters += len(few[-1])
        if characters >= _GROUP_CHARACTERS:
            yield "\n".join(few)
            few, characters = [], 0
    yield "\n".join(few)


def regions(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The tables of a sheet: rows that follow each other without an empty one, without columns empty in all of them."""
    region: list[Row] = []
    for row in (*rows, ()):
        if any(cell.strip() for cell in row):
            region.append(row)
        elif region:
            yield _without_empty_columns(region)
            region = []


def _without_empty_columns(rows: list[Row]) -> list[Row]:
    width = max(map(len, rows))
    used = [column for column in range(width) if any(column < len(row) and row[column].strip() for row in rows)]
    return [[row[column] if column < len(row) else "" for column in used] for row in rows]


def _is_number(cell: str) -> bool:
    return not any(character.isalpha() for character in cell)
