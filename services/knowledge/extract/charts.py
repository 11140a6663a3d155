"""Charts of Office files: titles, then the numbers as a table."""

from collections.abc import Iterator
from itertools import zip_longest

from lxml import etree

from services.knowledge.extract.xml import descendants, find_child


def rows(chart: etree._Element) -> Iterator[str]:
    """Its titles, then a row for each category, with a column for each series."""
    for title in descendants(chart, "title"):
        yield "".join(text.text or "" for text in title.iter("{*}t"))
    series = list(descendants(chart, "ser"))
    if not series:
        return
    categories = list(_values(find_child(series[0], "cat")))
    columns = [list(_values(find_child(one, "val"))) for one in series]
    yield " | ".join("".join(_values(find_child(one, "tx"))) for one in series)
    for row in zip_longest(categories, *columns, fillvalue=""):
        yield " | ".join(row)


def _values(element: etree._Element | None) -> Iterator[str]:
    if element is not None:
        for point in descendants(element, "v"):
            yield _rounded(point.text or "")


def _rounded(number: str) -> str:
    """A number as people wrote it: files keep 4.4 as 4.4000000000000004."""
    try:
        return f"{float(number):.15g}" if "." in number else number
    except ValueError:
        return number
