"""Pages of a PDF that are pictures: what text recognition reads there."""

from collections.abc import Mapping, Sequence

import pypdfium2
import pypdfium2.raw as pdfium

from services.knowledge.extract import ocr
from services.knowledge.extract.tesseract import DOTS_PER_INCH
from services.knowledge.indexing import Unreadable
from services.shared.errors import Reason

_MAX_PAGES = 30
"""A page takes a second or two, and a document has a minute."""
_MAX_PIXELS = 25_000_000
_POINTS_PER_INCH = 72


def recognise(document: pypdfium2.PdfDocument, pages: Sequence[int], *, all_pages: int) -> Mapping[int, Sequence[str]]:
    """The paragraphs of those of `pages`, without text, that are pictures; nothing if text stands on other pages and
    recognition is missing or would take too long. Raises Unreadable."""
    pictures = [page for page in pages if _is_picture(document, page)]
    has_text = len(pages) < all_pages
    if not pictures or (has_text and (not ocr.is_possible() or len(pictures) > _MAX_PAGES)):
        return {}
    if len(pictures) > _MAX_PAGES and ocr.is_possible():
        message = f"Text recognition reads at most {_MAX_PAGES} scanned pages: split the file and upload the parts."
        raise Unreadable(Reason.EXTRACTION_LIMIT, message)
    return {page: ocr.paragraphs(_rendered(document, page)) for page in pictures}


def _is_picture(document: pypdfium2.PdfDocument, number: int) -> bool:
    try:
        page = document[number]
        found = any(True for _ in page.get_objects(filter=(pdfium.FPDF_PAGEOBJ_IMAGE,), max_depth=3))
        page.close()
    except pypdfium2.PdfiumError:
        return False
    return found


def _rendered(document: pypdfium2.PdfDocument, number: int) -> bytes:
    """The page as a picture in shades of grey (PGM)."""
    page = document[number]
    scale = DOTS_PER_INCH / _POINTS_PER_INCH
    pixels = page.get_width() * page.get_height() * scale * scale
    bitmap = page.render(scale=scale * min(1.0, (_MAX_PIXELS / max(pixels, 1.0)) ** 0.5), grayscale=True)
    rows = bytes(bitmap.buffer)
    lines = (rows[line * bitmap.stride : line * bitmap.stride + bitmap.width] for line in range(bitmap.height))
    return b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + b"".join(lines)
