"""Why a file can't be read, in words that tell its owner what to do."""

from services.knowledge.indexing import Unreadable
from services.shared.errors import Reason

_SUPPORTED = "Upload it as PDF, Office or OpenDocument file, HTML, Markdown, text, CSV, EPUB, mail, notebook or ZIP."


def corrupt() -> Unreadable:
    message = "The file can't be read: it is damaged or cut off. Save it again and upload it."
    return Unreadable(Reason.DOCUMENT_CORRUPT, message)


def encrypted() -> Unreadable:
    message = "The file is protected by a password: remove the protection and upload it again."
    return Unreadable(Reason.DOCUMENT_ENCRYPTED, message)


def too_large() -> Unreadable:
    message = "Unpacked, the file is larger than a document may be: split it and upload the parts."
    return Unreadable(Reason.EXTRACTION_LIMIT, message)


def unsupported(what: str) -> Unreadable:
    return Unreadable(Reason.UNSUPPORTED_FORMAT, f"The file is {what}. {_SUPPORTED}")
