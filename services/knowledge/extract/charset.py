"""Bytes to text: by byte order mark, then UTF-8, then UTF-16 by its zeros, then by likelihood."""

import codecs

from charset_normalizer import from_bytes

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 64 * 1024
_CONTROLS = bytes(set(range(0x20)) - {9, 10, 11, 12, 13, 27})


def decode(content: bytes) -> str | None:
    """The text that the bytes stand for; None if they hardly are text."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    sample = content[:_SAMPLE_BYTES]
    if utf16 := _utf16(sample):
        return content.decode(utf16, "replace")
    if len(sample.translate(None, _CONTROLS)) < len(sample) * 0.99:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        best = from_bytes(sample).best()
        return content.decode(best.encoding, "replace") if best else None


def _utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark: in text with any Latin, digits or spaces one of each pair of bytes often is zero."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    enough = max(len(sample) // 20, 1)
    if odd >= enough and even * 20 < odd:
        return "utf-16-le"
    if even >= enough and odd * 20 < even:
        return "utf-16-be"
    return None
