"""Bytes to text: by byte order mark, then UTF-8, then UTF-16 by its zeros; then Hebrew and Arabic by how words are
spelt, others by the letters that occur, then by likelihood among the encodings that people still use.

A few words are enough to know Hebrew by: five of its letters have a form of their own at the end of a word and nowhere
else, which no other alphabet that shares the bytes keeps to. Arabic is known by its article, which opens many words.
"""

import codecs
import re

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
_USED = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "koi8_r",
    "shift_jis", "cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "euc_kr", "cp949",
)  # fmt: skip
_WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff]{2}[A-Za-z\x80-\xff]*")
_HEBREW_WORD = re.compile(rb"[\xe0-\xfa\xc0-\xd3]+")  # letters and points
_POINTS = bytes(range(0xC0, 0xD4))
_ENDS_ONLY = re.compile(rb"[\xea\xed\xef\xf3\xf5](?=[\xe0-\xfa])")  # final kaf, mem, nun, pe, tsadi inside of a word
_NEVER_ENDS = re.compile(rb"[\xeb\xee\xf0\xf6]$")  # the others; pe ends words of foreign origin
_ARABIC_ARTICLE = b"\xc7\xe1"
_ALMOST_ALL = 0.8
_MANY = 0.15
_PUNCTUATION = "€‚„…‹‘’“”•–—›¡§©«®°´·»¿\xa0"
# Encoding, letters beyond A to Z of the languages that are written in it, and those that tell it from the others.
_ALPHABETS = (
    ("cp1254", "çğıöşüÇĞİÖŞÜâîû", "ğışĞİŞ"),
    ("cp1252", "áéíóúñüãçâêôàäöåßïëîÁÉÍÓÚÑÜÃÇÂÊÔÀÄÖÅ", "áéíóúñüãçâêôàäöåßïëîÁÉÍÓÚÑÜÃÇÂÊÔÀÄÖÅ"),
)


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
        likely = _by_spelling(sample) or _by_likelihood(sample)
        return content.decode(likely, "replace") if likely else None


def _by_spelling(sample: bytes) -> str | None:
    words = _WORD.findall(sample)
    if not words:
        return _by_alphabet(sample)
    if sum(map(_is_hebrew, words)) >= len(words) * _ALMOST_ALL:
        return "cp1255"
    if sum(word.startswith(_ARABIC_ARTICLE) for word in words) >= len(words) * _MANY:
        return "cp1256"
    return _by_alphabet(sample)


def _is_hebrew(word: bytes) -> bool:
    letters = word.translate(None, _POINTS)
    return (
        _HEBREW_WORD.fullmatch(word) is not None
        and len(letters) * 2 >= len(word)
        and not _ENDS_ONLY.search(letters)
        and not _NEVER_ENDS.search(letters)
    )


def _by_alphabet(sample: bytes) -> str | None:
    used = {byte for byte in sample if byte >= 0x80}
    for encoding, letters, telling in _ALPHABETS:
        known = set((letters + _PUNCTUATION).encode(encoding, "ignore"))
        if used <= known and used & set(telling.encode(encoding)):
            return encoding
    return None


def _by_likelihood(sample: bytes) -> str | None:
    best = from_bytes(sample, cp_isolation=list(_USED)).best()
    return best.encoding if best else None


def _utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark: in text with any Latin, digits or spaces one of each pair of bytes often is zero."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    enough = max(len(sample) // 20, 1)
    if odd >= enough and even * 20 < odd:
        return "utf-16-le"
    if even >= enough and odd * 20 < even:
        return "utf-16-be"
    return None
