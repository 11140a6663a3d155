"""Plain text: paragraphs are separated by blank lines."""

import re

from services.knowledge.extract.sections import Read
from services.knowledge.passages import Block

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


def read(text: str) -> Read:
    """The paragraphs of a text."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return Read("text/plain", (Block(paragraph) for paragraph in _BLANK_LINE.split(lines)))
