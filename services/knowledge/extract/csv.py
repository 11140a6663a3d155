"""CSV and its like: rows of cells between commas, semicolons, tabs or bars."""

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

from services.knowledge.extract import tables
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.passages import Block

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 50
_ALIKE = 0.7  # of the rows have as many cells as most
_USUAL_CELL_CHARACTERS = 80
csv.field_size_limit(100_000_000)  # the text as a whole is bounded elsewhere


def find_delimiter(text: str) -> str | None:
    """What separates the cells; None if the text is no table."""
    lines = [line for line in islice(text.splitlines(), _SAMPLE_ROWS) if line.strip()]
    if len(lines) < 2:
        return None
    likelihood, delimiter = max((_likelihood(lines, delimiter), delimiter) for delimiter in _DELIMITERS)
    return delimiter if likelihood > 0 else None


def _likelihood(lines: list[str], delimiter: str) -> float:
    """How many cells in rows of one width the sample has; 0 for prose with such signs in it."""
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return 0
    width, alike = Counter(map(len, rows)).most_common(1)[0]
    if width < 2 or min(map(len, rows)) < 2 or (alike < len(rows) * _ALIKE and len(rows) > 3) or _is_prose(rows):
        return 0
    return width * alike / len(rows)


def _is_prose(rows: list[list[str]]) -> bool:
    """Whether spaces follow the signs, as in sentences, or the cells are as long as these."""
    cells = list(chain.from_iterable(rows))
    later = [cell for row in rows for cell in row[1:] if cell]
    spaced = sum(cell.startswith(" ") and not cell.endswith(" ") for cell in later)  # " | " is a sign, too
    return spaced * 2 > len(later) or sum(map(len, cells)) > _USUAL_CELL_CHARACTERS * len(cells)


def read(text: str, delimiter: str) -> Read:
    """The rows of a table."""
    return Read("text/csv", _blocks(text, delimiter))


def _blocks(text: str, delimiter: str) -> Iterator[Block]:
    rows = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    first = list(islice(rows, tables.NAMED_ROWS))
    sections = Sections()
    if tables.has_header(first):
        yield from sections.heading(1, tables.line(first[0]))
        del first[0]
    for few in tables.grouped(chain(first, rows)):
        yield from sections.text(few)
    yield from sections.end()
