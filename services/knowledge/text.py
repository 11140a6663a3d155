"""Text without what a reader can't see.

Control characters break stores and terminals; zero-width, tag, bidi-control and variation characters hide text from
people but not from a model. Joiners stay between letters of scripts that are spelt with them.
"""

import re
import unicodedata

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters, without white space
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # soft hyphen, fillers
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\uffff"  # zero width, bidi controls, non-characters
    "\ufe00-\ufe0f\U000e0000-\U000e0fff"  # variation selectors, tags
    "\ud800-\udfff]"  # halves of characters
    "|(?<![\u0600-\u06ff\u0700-\u07bf\u0900-\u0dff\u0f00-\u109f])[\u200c\u200d]"
    "|[\u200c\u200d](?![\u0600-\u06ff\u0700-\u07bf\u0900-\u0dff\u0f00-\u109f])"
)
_SPACES = re.compile(r"[^\S\n]+")
_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r" ?\n ?(?:\n ?)+")


def seen(text: str) -> str:
    """What a reader sees of `text`: NFC, one space between words, at most one blank line, nothing unseen."""
    text = _UNSEEN.sub("", _BREAKS.sub("\n", unicodedata.normalize("NFC", text)))
    text = _SPACES.sub(" ", text).replace(" \n", "\n").replace("\n ", "\n")
    return _BLANK_LINES.sub("\n\n", text).strip()


def seen_line(text: str) -> str:
    """The same on one line."""
    return " ".join(seen(text).split())
