"""RTF: paragraphs and table rows; those with an outline level are headings.

The format is a stream of words and groups. A group inherits what is set in the one around it and takes it back at its
end. Bytes are of the code page of the font, of the document where the font has none; `\\u` gives a character beside
a stand-in of `\\uc` characters for old readers, which is left out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.knowledge.extract.refusals import corrupt
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.passages import Block

CONTENT_TYPE = "application/rtf"
_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)"
)
_MAX_DEPTH = 500
_UNSEEN = frozenset(
    b"fonttbl colortbl stylesheet info pict object themedata colorschememapping datastore latentstyles listtable "
    b"listoverridetable rsidtbl generator xmlnstbl header headerl headerr headerf footer footerl footerr footerf "
    b"fldinst filetbl revtbl pgptbl mmathPr".split()
)
_SIGNS = {
    b"tab": "\t", b"line": "\n", b"emdash": "—", b"endash": "–", b"bullet": "•", b"lquote": "‘", b"rquote": "’",
    b"ldblquote": "“", b"rdblquote": "”", b"~": "\xa0", b"_": "-", b"{": "{", b"}": "}", b"\\": "\\",
}  # fmt: skip
_ENDS = frozenset((b"par", b"sect", b"page", b"row", b"nestrow"))
_CODE_PAGE = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 134: "cp936", 136: "cp950", 161: "cp1253", 162: "cp1254",
    163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
}  # fmt: skip


@dataclass(frozen=True)
class _State:
    """What holds inside a group."""

    is_unseen: bool = False
    is_font_table: bool = False
    font: int = -1
    stand_in: int = 1
    level: int | None = None


class _Reader:
    def __init__(self) -> None:
        self._sections = Sections()
        self._text: list[str] = []
        self._bytes = bytearray()
        self._state = _State()
        self._around: list[_State] = []
        self._document_page = "cp1252"
        self._font_pages: dict[int, str] = {}
        self._left_out = 0

    def blocks(self, content: bytes) -> Iterator[Block]:
        for token in _TOKEN.finditer(content):
            word, number, byte, sign, brace, plain = token.groups()
            if brace:
                self._group(brace)
            elif byte:
                self._add(bytes.fromhex(byte.decode()))
            elif plain:
                self._add(plain)
            elif word in _ENDS and not self._state.is_unseen:
                yield from self._paragraph()
            elif word:
                self._word(word, int(number) if number else None)
            elif sign == b"*":
                self._state = replace(self._state, is_unseen=True)
            elif sign in _SIGNS:
                self._say(_SIGNS[sign])
        yield from self._paragraph()
        yield from self._sections.end()

    def _group(self, brace: bytes) -> None:
        self._flush()
        self._left_out = 0
        if brace == b"{":
            self._around.append(self._state)
            if len(self._around) > _MAX_DEPTH:
                raise corrupt()
        elif self._around:
            level = self._state.level
            self._state = self._around.pop()
            if not self._state.is_unseen and level is not None and self._text:  # the paragraph ends after its group
                self._state = replace(self._state, level=level)

    def _word(self, word: bytes, number: int | None) -> None:
        self._flush()
        state = self._state
        if word == b"u" and number is not None:
            self._say(chr(number % 0x10000))
            self._left_out = state.stand_in
        elif word in (b"cell", b"nestcell"):
            self._say(" | ")
        elif word in _SIGNS:
            self._say(_SIGNS[word])
        elif word in _UNSEEN:
            self._state = replace(state, is_unseen=True, is_font_table=word == b"fonttbl")
        elif word == b"v":  # hidden text
            self._state = replace(state, is_unseen=number != 0)
        elif word == b"pard":
            self._state = replace(state, level=None)
        elif number is None:
            pass
        elif word == b"outlinelevel":
            self._state = replace(state, level=number + 1)
        elif word == b"uc":
            self._state = replace(state, stand_in=min(max(number, 0), 8))
        elif word == b"f":
            self._state = replace(state, font=number)
        elif word == b"ansicpg":
            self._document_page = f"cp{number}" if number > 0 else self._document_page
        elif word == b"fcharset" and state.is_font_table and number in _CODE_PAGE:
            self._font_pages[state.font] = _CODE_PAGE[number]

    def _add(self, seen: bytes) -> None:
        left_out = min(self._left_out, len(seen))
        self._left_out -= left_out
        if not self._state.is_unseen:
            self._bytes += seen[left_out:]

    def _say(self, text: str) -> None:
        self._flush()
        if not self._state.is_unseen:
            self._text.append(text)

    def _flush(self) -> None:
        if self._bytes:
            page = self._font_pages.get(self._state.font, self._document_page)
            try:
                self._text.append(self._bytes.decode(page, "replace"))
            except LookupError:
                self._text.append(self._bytes.decode("cp1252", "replace"))
            self._bytes.clear()

    def _paragraph(self) -> Iterator[Block]:
        self._flush()
        # Characters beyond 16 bits come as two halves.
        text = "".join(self._text).encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip(" |")
        self._text.clear()
        if self._state.level is not None and 0 < self._state.level < 10:
            yield from self._sections.heading(self._state.level, " ".join(text.split()))
        else:
            yield from self._sections.text(text)


def read(content: bytes) -> Read:
    """The paragraphs of a document. Raises Unreadable."""
    return Read(CONTENT_TYPE, _Reader().blocks(content))
