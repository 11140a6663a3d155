"""What a file is, by its content: a name says nothing."""

from services.knowledge.extract import (
    captions,
    csv,
    docx,
    epub,
    html,
    mail,
    markdown,
    members,
    notebook,
    ocr,
    odf,
    old_office,
    pdf,
    plain,
    pptx,
    refusals,
    rtf,
    sheets,
    xml,
)
from services.knowledge.extract.archive import Archive, Nested
from services.knowledge.extract.charset import decode
from services.knowledge.extract.sections import Read

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OFFICE_PACKAGE = "[Content_Types].xml"
_RTF = b"{\\rtf"


def read(content: bytes, nested: Nested | None = None) -> Read:
    """What the file says. Raises Unreadable."""
    nested = nested or Nested()
    if content.startswith(_ZIP):
        return _packed(content, nested)
    if b"%PDF-" in content[:1024]:
        return pdf.read(content)
    if content.startswith(old_office.SIGNATURE):
        return old_office.read(content, nested, read)
    if content.startswith(_RTF):
        return rtf.read(content)
    if mail.looks_like(content):
        return mail.read(content, nested, read)
    if (picture := ocr.find_type(content)) is not None:
        return ocr.read(content, picture)
    text = decode(content)
    if text is None:
        raise refusals.unsupported("of no format that holds text")
    return _text(text, content)


def _packed(content: bytes, nested: Nested) -> Read:
    archive = Archive(content, nested.allowance)
    if docx.find_main(archive.names):
        return docx.read(archive)
    if pptx.MAIN in archive.names:
        return pptx.read(archive)
    if sheets.is_workbook(archive.names):
        return sheets.read(content, archive)
    if epub.MAIN in archive.names:
        return epub.read(archive)
    if odf.MAIN in archive.names and "mimetype" in archive.names:
        return odf.read(archive)
    if _OFFICE_PACKAGE in archive.names:
        raise refusals.unsupported("an Office file of another kind")
    return members.read(archive, nested, read)


def _text(text: str, content: bytes) -> Read:
    begin = text[:4096].lstrip().lower()
    if html.looks_like(begin):
        return html.read(text)
    if begin.startswith("<?xml"):
        return odf.read_flat(root) if odf.is_flat(root := xml.parse(content)) else xml.read(root)
    if (book := notebook.find(text)) is not None:
        return notebook.read(book)
    if captions.looks_like(text):
        return captions.read(text)
    delimiter = csv.find_delimiter(text)
    if delimiter is not None and not (delimiter == "|" and markdown.looks_like(text)):
        return csv.read(text, delimiter)
    return (markdown if markdown.looks_like(text) else plain).read(text)
