"""What people filled in and noted on the pages of a PDF: it is not part of the page's own text."""

import ctypes
from collections.abc import Callable, Iterator

import pypdfium2
import pypdfium2.raw as pdfium

_MAX_ANNOTATIONS = 5000
_NOTES = frozenset((pdfium.FPDF_ANNOT_TEXT, pdfium.FPDF_ANNOT_FREETEXT))
_WRITTEN = frozenset((pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX))
_TICKED = frozenset((pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON))
_NOT_TICKED = frozenset(("", "Off"))


def texts(document: pypdfium2.PdfDocument, page: pypdfium2.PdfPage) -> Iterator[str]:
    """The fields that hold something, each with its name, and the notes. The document's forms must be initialised."""
    form = document.formenv
    for number in range(min(pdfium.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)):
        annotation = pdfium.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        kind = pdfium.FPDFAnnot_GetSubtype(annotation)
        if kind == pdfium.FPDF_ANNOT_WIDGET and form is not None:
            yield from _field(form.raw, annotation)
        elif kind in _NOTES:
            yield _text(pdfium.FPDFAnnot_GetStringValue, annotation, b"Contents")
        pdfium.FPDFPage_CloseAnnot(annotation)


def _field(form: object, annotation: object) -> Iterator[str]:
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    value = _text(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)
    # What a field is called for people who can't see the page, or else for programs.
    name = _text(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, annotation) or _text(
        pdfium.FPDFAnnot_GetFormFieldName, form, annotation
    )
    if kind in _WRITTEN and value.strip():
        yield f"{name}: {value}"
    elif kind in _TICKED and pdfium.FPDFAnnot_IsChecked(form, annotation):
        yield name if value in (*_NOT_TICKED, "Yes", "On") else f"{name}: {value}"


def _text(read: Callable[..., int], *where: object) -> str:
    """What a function of PDFium writes into a buffer, asked first how long it is; both count a zero at the end."""
    size = read(*where, None, 0)
    buffer = ctypes.create_string_buffer(size)
    read(*where, ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return buffer.raw[: max(size - 2, 0)].decode("utf-16-le", "replace")
