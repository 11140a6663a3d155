"""What a file is, by its content: a name says nothing."""

from collections.abc import Callable

from services.knowledge.extract import docx, html, markdown, pdf, plain
from services.knowledge.extract.charset import decode
from services.knowledge.extract.sections import Read
from services.knowledge.indexing import Unreadable
from services.shared.errors import Reason

_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_SUPPORTED = "Upload it as PDF, DOCX, HTML, Markdown or text."


def read(content: bytes) -> Read:
    """What the file says. Raises Unreadable."""
    if b"%PDF-" in content[:1024]:
        return pdf.read(content)
    if content.startswith(b"PK"):
        return docx.read(content)
    if content.startswith(_OLE):
        if _ENCRYPTED_OFFICE in content:
            message = "The file is protected by a password: remove the protection and upload it again."
            raise Unreadable(Reason.DOCUMENT_ENCRYPTED, message)
        raise _unsupported("an older Office format or a mail")
    text = decode(content)
    if text is None:
        raise _unsupported("of no format that holds text")
    return _reader(text)(text)


def _reader(text: str) -> Callable[[str], Read]:
    begin = text[:4096].lstrip().lower()
    if begin.startswith("{\\rtf"):
        raise _unsupported("RTF")
    if html.looks_like(begin):
        return html.read
    if begin.startswith("<?xml"):
        raise _unsupported("XML")
    return markdown.read if markdown.looks_like(text) else plain.read


def _unsupported(what: str) -> Unreadable:
    return Unreadable(Reason.UNSUPPORTED_FORMAT, f"The file is {what}. {_SUPPORTED}")
