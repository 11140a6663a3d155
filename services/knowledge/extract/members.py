"""Files inside of a file: in a ZIP, attached to a mail. Each is read as if it had been uploaded, below its name.

One that can't be read does not take the others with it: it is named, with the reason, in the text that is indexed. One
that would cost more than allowed ends the whole.
"""

from collections.abc import Callable
from dataclasses import replace

from services.knowledge.extract.archive import Archive, Nested
from services.knowledge.extract.refusals import corrupt, too_large
from services.knowledge.extract.sections import Read
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Block
from services.shared.errors import Reason

CONTENT_TYPE = "application/zip"
_MAX_DEPTH = 3
_NOT_FILES = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")

Reader = Callable[[bytes, Nested], Read]


class Members:
    """Reads the files inside of one file and remembers the refusals."""

    def __init__(self, nested: Nested, read: Reader) -> None:
        if nested.depth >= _MAX_DEPTH:
            raise too_large()
        self._nested = nested
        self._read = read
        self.refusals: list[Unreadable] = []

    def blocks(self, name: str, content: bytes, headings: tuple[str, ...] = ()) -> list[Block]:
        self._nested.allowance.take_file()
        above = (*headings, name)
        try:
            inside = self._read(content, self._nested.inside).blocks
            blocks = [replace(block, headings=(*above, *block.headings)) for block in inside]
        except Unreadable as error:
            blocks = [self.refused(error, above)]
        except MemoryError:
            raise
        except BaseException:  # whatever a reader stumbles over, a panic of Rust too: it is the file's doing
            blocks = [self.refused(corrupt(), above)]
        return blocks

    def refused(self, error: Unreadable, headings: tuple[str, ...]) -> Block:
        if error.failure.reason is Reason.EXTRACTION_LIMIT:
            raise error
        self.refusals.append(error)
        return Block(f"Not indexed: {error.failure.message}", None, headings)


def read(archive: Archive, nested: Nested, read_member: Reader) -> Read:
    """The files of a ZIP. Raises Unreadable if there are none, or none that can be read."""
    members = Members(nested, read_member)
    names = [name for name in archive.names if not name.endswith("/") and not _is_no_file(name)]
    blocks: list[Block] = []
    for name in names:
        try:
            content = archive.part(name)
        except Unreadable as error:
            blocks.append(members.refused(error, (name,)))
        else:
            blocks += members.blocks(name, content)
    if members.refusals and len(members.refusals) == len(names):
        raise members.refusals[0]
    return Read(CONTENT_TYPE, blocks)


def _is_no_file(name: str) -> bool:
    return any(part in name for part in _NOT_FILES)
