"""Where a text may be cut: between sentences, else between words, and never inside of what a reader takes for one
character: a letter with its accents and points, an emoji with its colour, a flag.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from services.knowledge.passages import SENTENCE_END

_JOINERS = "\u200c\u200d"
_COLOURS = ("\U0001f3fb", "\U0001f3ff")
_FLAG_LETTERS = ("\U0001f1e6", "\U0001f1ff")


def sentence_begins(text: str) -> Sequence[int]:
    """Places, the first one 0."""
    ends = (match.end() for match in SENTENCE_END.finditer(text))
    return [0, *(end for end in ends if 0 < end < len(text) and not text[end].isspace() and whole(text, end) == end)]


def cut_after(text: str, begins: Sequence[int], begin: int, most: int) -> int:
    """Where a piece from `begin` on ends that has at most `most` characters, and half of them if it can.

    `begins` are the text's `sentence_begins`.
    """
    last = begin + most
    if last >= len(text):
        return len(text)
    least = begin + most // 2
    sentence = begins[bisect_right(begins, last) - 1]
    if sentence > least:
        return _without_space_after(text, begin, sentence)
    space = max(text.rfind(" ", least, last + 1), text.rfind("\n", least, last + 1))
    end = whole(text, space if space >= 0 else last)
    return _without_space_after(text, begin, end) if end > begin else last


def cut_before(text: str, begins: Sequence[int], most: int) -> int:
    """Where the last piece begins that has at most `most` characters, and half of them if it can."""
    first = len(text) - most
    if first <= 0:
        return 0
    least = first + most // 2
    place = bisect_left(begins, first)
    if place < len(begins) and begins[place] <= least:
        return begins[place]
    spaces = [space for space in (text.find(" ", first, least), text.find("\n", first, least)) if space >= 0]
    place = whole(text, min(spaces) + 1 if spaces else first)
    return place if place >= first else next_whole(text, first)


def whole(text: str, place: int) -> int:
    """`place`, or the beginning of the character that it is inside of."""
    while 0 < place < len(text) and _continues(text, place):
        place -= 1
    return place


def next_whole(text: str, place: int) -> int:
    """`place`, or the end of the character that it is inside of."""
    while place < len(text) and _continues(text, place):
        place += 1
    return place


def _continues(text: str, place: int) -> bool:
    character, before = text[place], text[place - 1]
    if character.isascii():
        return before == "\u200d"
    if _FLAG_LETTERS[0] <= character <= _FLAG_LETTERS[1]:
        head = text[:place]
        return (len(head) - len(head.rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))) % 2 == 1
    return (
        unicodedata.category(character)[0] == "M"
        or character in _JOINERS
        or before in _JOINERS
        or _COLOURS[0] <= character <= _COLOURS[1]
    )


def _without_space_after(text: str, begin: int, end: int) -> int:
    while end > begin and text[end - 1].isspace():
        end -= 1
    return end
