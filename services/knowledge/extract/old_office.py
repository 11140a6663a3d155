"""Files of Office before 2007 and of Outlook (DOC, PPT, MSG): their text, in the order in which they keep it.

Such a file is a small file system of streams, read by olefile. Layouts: MS-DOC 2.4.1 (the piece table), MS-PPT 2.3
(records), MS-OXMSG 2.2 (a stream for each property).
"""

import io
import re
import struct
from collections.abc import Iterator

import olefile

from services.knowledge.extract import sheets
from services.knowledge.extract.archive import Nested
from services.knowledge.extract.members import Members, Reader
from services.knowledge.extract.refusals import corrupt, encrypted, unsupported
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.passages import Block

SIGNATURE = olefile.MAGIC
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_ENCRYPTED = ("EncryptedSummary", "EncryptedStream")
_WORKBOOKS = ("Workbook", "Book")
_WORD, _SHOW, _MAIL = "WordDocument", "PowerPoint Document", "__properties_version1.0"
_SUBJECT, _SENDER, _RECEIVER, _BODY = "0037", "0C1A", "0E04", "1000"
_ATTACHED_NAMES, _ATTACHED = ("3707", "3704"), "37010102"
_CONTAINERS = frozenset((0x040C, 0xF002, 0xF003, 0xF004, 0xF00D))  # drawings, groups, shapes, text boxes


def read(content: bytes, nested: Nested, read_member: Reader) -> Read:
    """What the file says. Raises Unreadable."""
    if _ENCRYPTED_PACKAGE in content:  # a file of newer Office, packed into this one
        raise encrypted()
    try:
        with olefile.OleFileIO(io.BytesIO(content)) as file:
            if any(file.exists(stream) for stream in _ENCRYPTED):
                raise encrypted()
            if book := next(filter(file.exists, _WORKBOOKS), None):
                return _workbook(content, file.openstream(book).read())
            if file.exists(_WORD):
                return Read("application/msword", list(_word(file)))
            if file.exists(_SHOW):
                return Read("application/vnd.ms-powerpoint", list(_show(file.openstream(_SHOW).read())))
            if file.exists(_MAIL):
                return Read("application/vnd.ms-outlook", list(_mail(file, Members(nested, read_member))))
    except (OSError, struct.error, IndexError, ValueError) as error:
        raise corrupt() from error
    raise unsupported("of a format of its own program")


def _workbook(content: bytes, stream: bytes) -> Read:
    place = 0
    while place + 4 <= len(stream):
        kind, length = struct.unpack_from("<HH", stream, place)
        if kind == 0x2F:  # MS-XLS 2.4.117 FilePass
            raise encrypted()
        if kind == 0x0A:  # the end of what holds for all sheets
            break
        place += 4 + length
    return sheets.read_old(content)


def _word(file: olefile.OleFileIO) -> Iterator[Block]:
    stream = file.openstream(_WORD).read()
    (flags,) = struct.unpack_from("<H", stream, 0x0A)
    if flags & 0x0100:
        raise encrypted()
    table = file.openstream("1Table" if flags & 0x0200 else "0Table").read()
    begin, length = struct.unpack_from("<II", stream, 0x01A2)
    text = "".join(_pieces(stream, table[begin : begin + length]))
    text = re.sub("\x13[^\x13\x14\x15]*\x14?|[\x14\x15]", "", text)  # what a field was computed from
    text = re.sub("\x07{2,}", "\r", text).replace("\x07", " | ")
    for paragraph in re.split("[\r\x0c]", text):
        yield Block(paragraph.strip(" |"))


def _pieces(stream: bytes, pieces: bytes) -> Iterator[str]:
    place = 0
    while pieces[place] == 1:  # formats that pieces share
        place += 3 + struct.unpack_from("<H", pieces, place + 1)[0]
    (length,) = struct.unpack_from("<I", pieces, place + 1)
    count = (length - 4) // 12
    ends = struct.unpack_from(f"<{count + 1}I", pieces, place + 5)
    for number in range(count):
        (at,) = struct.unpack_from("<I", pieces, place + 5 + 4 * (count + 1) + 8 * number + 2)
        characters = ends[number + 1] - ends[number]
        if at & 0x4000_0000:
            at = (at & 0x3FFF_FFFF) // 2
            yield stream[at : at + characters].decode("cp1252", "replace")
        else:
            yield stream[at : at + 2 * characters].decode("utf-16-le", "replace")


def _show(stream: bytes) -> Iterator[Block]:
    """First what stands in the outline of each slide, then what stands in boxes of its own."""
    outline: dict[int, list[tuple[int, str]]] = {}
    slides: list[list[tuple[int, str]]] = []
    for kind, _, body in _records(stream):
        if kind == 0x03E8:  # the document
            for inner, which, content in _records(body):
                if inner == 0x0FF0 and which == 0:
                    outline |= _outline(content)
        elif kind == 0x03EE:
            slides.append(list(_texts(body)))
    for page in range(1, max([len(slides), *outline]) + 1):
        sections = Sections()
        boxes = slides[page - 1] if page <= len(slides) else []
        for place, text in (*outline.get(page, ()), *boxes):
            if place in (0, 6):
                yield from sections.heading(1, " ".join(text.split()), page)
            else:
                yield from sections.text(text, page)
        yield from sections.end()


def _outline(content: bytes) -> dict[int, list[tuple[int, str]]]:
    found: dict[int, list[tuple[int, str]]] = {}
    page, place = 0, -1
    for kind, _, body in _records(content):
        if kind == 0x03F3:
            page += 1
        elif kind == 0x0F9F:
            place = struct.unpack_from("<I", body)[0]
        elif (text := _text(kind, body)) is not None:
            found.setdefault(page, []).append((place, text))
    return found


def _texts(body: bytes, depth: int = 0) -> Iterator[tuple[int, str]]:
    place = -1
    for kind, _, inside in _records(body):
        if kind == 0x0F9F:
            place = struct.unpack_from("<I", inside)[0]
        elif (text := _text(kind, inside)) is not None:
            yield place, text
        elif kind in _CONTAINERS and depth < 50:
            yield from _texts(inside, depth + 1)


def _text(kind: int, body: bytes) -> str | None:
    if kind == 0x0FA0:
        return body.decode("utf-16-le", "replace").replace("\r", "\n")
    return body.decode("cp1252", "replace").replace("\r", "\n") if kind == 0x0FA8 else None


def _records(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, instance and content of each record."""
    place = 0
    while place + 8 <= len(stream):
        version, kind, length = struct.unpack_from("<HHI", stream, place)
        yield kind, version >> 4, stream[place + 8 : place + 8 + length]
        place += 8 + length


def _mail(file: olefile.OleFileIO, members: Members) -> Iterator[Block]:
    subject = _property(file, "", _SUBJECT)
    above = (subject,) if subject else ()
    people = {"From": _property(file, "", _SENDER), "To": _property(file, "", _RECEIVER)}
    yield Block("\n".join(f"{role}: {name}" for role, name in people.items() if name), None, above)
    yield Block(_property(file, "", _BODY), None, above)
    folders = sorted({entry[0] for entry in file.listdir() if entry[0].startswith("__attach")})
    for number, folder in enumerate(folders, start=1):
        if file.exists(stream := f"{folder}/__substg1.0_{_ATTACHED}"):
            names = (_property(file, f"{folder}/", name) for name in _ATTACHED_NAMES)
            name = next(filter(None, names), f"attachment {number}")
            yield from members.blocks(name, file.openstream(stream).read(), above)


def _property(file: olefile.OleFileIO, folder: str, number: str) -> str:
    for kind, encoding in (("001F", "utf-16-le"), ("001E", "cp1252")):
        if file.exists(stream := f"{folder}__substg1.0_{number}{kind}"):
            return str(file.openstream(stream).read().decode(encoding, "replace"))
    return ""
