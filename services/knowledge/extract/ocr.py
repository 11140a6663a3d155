"""Pictures, and the text that Tesseract recognises in them where the machine has it."""

from collections.abc import Sequence

from services.knowledge.extract import tesseract
from services.knowledge.extract.sections import Read
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Block
from services.shared.errors import Reason

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}


def find_type(content: bytes) -> str | None:
    """The content type of a picture; None if it is something else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    found = (kind for begin, kind in _SIGNATURES.items() if content.startswith(begin))
    kind = next(found, None)
    return None if kind == "image/bmp" and content[6:10] != bytes(4) else kind


def read(content: bytes, content_type: str) -> Read:
    """The paragraphs in a picture. Raises Unreadable."""
    return Read(content_type, [Block(paragraph, 1) for paragraph in paragraphs(content)], 1)


def is_possible() -> bool:
    return tesseract.find_program() is not None


def missing() -> Unreadable:
    """Why a picture of text is no text here."""
    message = "The file is a scan or a picture, and text recognition (OCR) is not installed here."
    return Unreadable(Reason.DOCUMENT_WITHOUT_TEXT, f"{message} Run it over the file and upload the result.")


def paragraphs(picture: bytes) -> Sequence[str]:
    """What is written in a picture, upright or not. Raises Unreadable."""
    if not is_possible():
        raise missing()
    return tesseract.paragraphs(picture)
