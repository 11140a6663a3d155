"""PDF, by PDFium: text page by page, paragraphs by the look of the lines, headings by outline or size of type.

The outline (bookmarks) is believed when it has entries that lead to pages: an entry becomes a heading at the line
that says the same, or at the beginning of its page if it is the only one of that page. Without an outline, short
lines in a type clearly larger than that of most of the text are headings; the larger the type, the further out.
"""

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pypdfium2
import pypdfium2.raw as pdfium

from services.knowledge.extract import forms, scans
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Block
from services.shared.errors import Reason

_LARGER = 1.15  # times the size of the text around
_HEADING_CHARACTERS = 150
_HEADING_SIZES = 3
_SHORT_LINE = 0.75  # of the usual length: a line that may end a paragraph
_FULL_LINE = 0.6  # of the usual length: a line that the next one goes on from; shorter ones stand for themselves
_HYPHEN = "\ufffe"  # PDFium's mark; it joins the two lines itself
_ALEF_LAM = re.compile("[\u0622\u0623\u0625\u0627]\u0644")
_LATIN_BEFORE_RTL = re.compile("(?<=[A-Za-z])(?=[\u05d0-\u05ea\u0621-\u064a])")  # PDFium drops the space between
_LIST_ITEM = re.compile(r"([•◦▪‣●○–*-]|\(?\d{1,3}[.)]|[a-z][.)])\s")
_SENTENCE_ENDS = (".", "!", "?", ":", ";", "。", "؟", "…")
_NOT_LETTERS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True)
class _Line:
    text: str
    size: float
    """Of its type, in points, rounded to halves."""


@dataclass(frozen=True)
class _Entry:
    """A heading of the outline; `line` counts within its page."""

    level: int
    title: str
    line: int


def read(content: bytes) -> Read:
    """The text of a PDF. Raises Unreadable."""
    try:
        document = pypdfium2.PdfDocument(content)
        document.init_forms()
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        raise _unreadable(error) from error
    if pages == 0:
        raise _corrupt()
    return Read("application/pdf", _blocks(document, pages), pages)


def _blocks(document: pypdfium2.PdfDocument, pages: int) -> Iterator[Block]:
    lines, filled_in = [], []
    for number in range(pages):
        of_page, of_forms = _page(document, number)
        lines.append(of_page)
        filled_in.append(of_forms)
    bare = [number for number in range(pages) if not lines[number]]
    recognised = scans.recognise(document, bare, all_pages=pages)
    outline = _outline(document, lines)
    sizes = [] if outline else _heading_sizes(lines)
    sections = Sections()
    for number, page in enumerate(lines, start=1):
        yield from _page_blocks(page, number, outline.get(number - 1, []), sizes, sections)
        for text in (*recognised.get(number - 1, ()), *filled_in[number - 1]):
            yield from sections.text(text, number)
    yield from sections.end()


def _page(document: pypdfium2.PdfDocument, number: int) -> tuple[list[_Line], list[str]]:
    """The lines of a page and what is filled in there; none for a page that can't be read while others can."""
    try:
        page = document[number]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        return [], []
    lines, place = [], 0
    for line in text_page.get_text_range().split("\r\n"):
        if text := _LATIN_BEFORE_RTL.sub(" ", _ligatures(text_page, line, place)).replace(_HYPHEN, "").strip():
            begin = pdfium.FPDFText_GetCharIndexFromTextIndex(text_page, place + len(line) - len(line.lstrip()))
            lines.append(_Line(text, round(pdfium.FPDFText_GetFontSize(text_page, max(begin, 0)) * 2) / 2))
        place += len(line) + 2
    filled_in = list(forms.texts(document, page))
    text_page.close()
    page.close()
    return lines, filled_in


def _ligatures(text_page: pypdfium2.PdfTextPage, line: str, place: int) -> str:
    """The line with lam before alef where both are one sign: PDFium turns what runs from right to left letter by
    letter, the two of a ligature too."""
    return _ALEF_LAM.sub(lambda pair: pair[0][::-1] if _is_one_sign(text_page, place + pair.start()) else pair[0], line)


def _is_one_sign(text_page: pypdfium2.PdfTextPage, place: int) -> bool:
    boxes = []
    for index in (place, place + 1):
        box = [ctypes.c_double() for _ in range(4)]
        pdfium.FPDFText_GetCharBox(text_page, pdfium.FPDFText_GetCharIndexFromTextIndex(text_page, index), *box)
        boxes.append([side.value for side in box])
    return boxes[0] == boxes[1]


def _outline(document: pypdfium2.PdfDocument, lines: list[list[_Line]]) -> dict[int, list[_Entry]]:
    """The outline's entries by page, each where its title stands."""
    bookmarks: dict[int, list[tuple[int, str]]] = {}
    for bookmark in document.get_toc():
        destination = bookmark.get_dest()
        page = destination.get_index() if destination else None
        if page is not None and 0 <= page < len(lines):
            bookmarks.setdefault(page, []).append((bookmark.level, bookmark.get_title()))
    return {page: list(_entries(of_page, lines[page])) for page, of_page in bookmarks.items()}


def _entries(bookmarks: list[tuple[int, str]], lines: list[_Line]) -> Iterator[_Entry]:
    letters = [_letters(line.text) for line in lines]
    begin = 0
    for level, title in bookmarks:
        if (wanted := _letters(title)) and wanted in letters[begin:]:
            begin = letters.index(wanted, begin)
            yield _Entry(level, title, begin)
        elif len(bookmarks) == 1:
            yield _Entry(level, title, 0)


def _heading_sizes(lines: list[list[_Line]]) -> list[float]:
    """The sizes of type that headings have, largest first."""
    characters: Counter[float] = Counter()
    for line in (line for page in lines for line in page):
        characters[line.size] += len(line.text)
    if not characters:
        return []
    usual = characters.most_common(1)[0][0]
    larger = [size for size, count in characters.items() if size > usual * _LARGER and count < characters[usual] / 2]
    return sorted(larger, reverse=True)[:_HEADING_SIZES]


def _page_blocks(
    lines: list[_Line], page: int, entries: list[_Entry], sizes: list[float], sections: Sections
) -> Iterator[Block]:
    headings: dict[int, list[_Entry]] = {}
    for entry in entries:
        headings.setdefault(entry.line, []).append(entry)
    said = {_letters(entry.title) for entry in entries}
    usual = sorted(len(line.text) for line in lines)[len(lines) * 3 // 4] if lines else 0
    for number, paragraph in _paragraphs(lines, set(headings), sizes, usual):
        for entry in headings.pop(number, ()):
            yield from sections.heading(entry.level, entry.title, page)
        text = "".join(line.text + (" " if len(line.text) > usual * _FULL_LINE else "\n") for line in paragraph).strip()
        if _letters(text) in said:
            continue
        if _is_heading(paragraph[0], sizes) and len(text) <= _HEADING_CHARACTERS:
            yield from sections.heading(sizes.index(paragraph[0].size), text, page)
        else:
            yield from sections.text(text, page)
    for entries_left in headings.values():  # of a page without lines
        for entry in entries_left:
            yield from sections.heading(entry.level, entry.title, page)


def _paragraphs(
    lines: list[_Line], starts: set[int], sizes: list[float], usual: int
) -> Iterator[tuple[int, list[_Line]]]:
    """The lines that belong together, with the number of the first one."""
    begin = 0
    for number in range(1, len(lines) + 1):
        at_title = number in starts or begin in starts
        if number == len(lines) or at_title or _parts(lines[number - 1], lines[number], sizes, usual):
            yield begin, lines[begin:number]
            begin = number


def _parts(line: _Line, following: _Line, sizes: list[float], usual: int) -> bool:
    """Whether a paragraph ends between two lines."""
    if _is_heading(line, sizes) or _is_heading(following, sizes):
        return line.size != following.size
    ends = len(line.text) < usual * _SHORT_LINE and line.text.endswith(_SENTENCE_ENDS)
    return ends or _LIST_ITEM.match(following.text) is not None


def _is_heading(line: _Line, sizes: list[float]) -> bool:
    return line.size in sizes


def _letters(text: str) -> str:
    return _NOT_LETTERS.sub("", text).lower()


def _unreadable(error: pypdfium2.PdfiumError) -> Unreadable:
    if error.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
        message = "The PDF is protected by a password: remove the protection and upload it again."
        return Unreadable(Reason.DOCUMENT_ENCRYPTED, message)
    return _corrupt()


def _corrupt() -> Unreadable:
    message = "The PDF can't be read: it is damaged or cut off. Save it again and upload it."
    return Unreadable(Reason.DOCUMENT_CORRUPT, message)
