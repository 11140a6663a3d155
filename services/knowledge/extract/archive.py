"""ZIP archives, which many formats are: parts are read into memory one by one, each and together within limits.

The limits count what is really unpacked, and what a part announces is refused before that. Nothing is written.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass, field

from lxml import etree

from services.knowledge.extract import refusals, xml
from services.knowledge.indexing import Unreadable

_MAX_PART_BYTES = 64 * 1024 * 1024
_MAX_NAMES = 20_000


@dataclass
class Allowance:
    """What one upload may unpack, with all files inside of it."""

    bytes_left: int = 256 * 1024 * 1024
    files_left: int = 2000

    def take(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise refusals.too_large()

    def take_file(self) -> None:
        self.files_left -= 1
        if self.files_left < 0:
            raise refusals.too_large()


@dataclass(frozen=True)
class Nested:
    """How deep a file lies inside the upload, and what may still be unpacked."""

    depth: int = 0
    allowance: Allowance = field(default_factory=Allowance)

    @property
    def inside(self) -> "Nested":
        return Nested(self.depth + 1, self.allowance)


class Archive:
    """The parts of an archive by name. Every method raises Unreadable."""

    def __init__(self, content: bytes, allowance: Allowance) -> None:
        self._allowance = allowance
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, ValueError) as error:
            raise refusals.corrupt() from error
        except NotImplementedError as error:  # zipfile: written for a newer program
            raise _packed_otherwise() from error
        self.names = self._zip.namelist()
        if len(self.names) > _MAX_NAMES:
            raise refusals.too_large()

    def part(self, name: str) -> bytes:
        try:
            if self._zip.getinfo(name).file_size > _MAX_PART_BYTES:
                raise refusals.too_large()
            with self._zip.open(name) as file:
                part = file.read(_MAX_PART_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
            raise refusals.corrupt() from error
        except NotImplementedError as error:  # zipfile: a method such as Deflate64
            raise _packed_otherwise() from error
        except RuntimeError as error:  # zipfile: encrypted member
            raise refusals.encrypted() from error
        if len(part) > _MAX_PART_BYTES:
            raise refusals.too_large()
        self._allowance.take(len(part))
        return part

    def xml(self, name: str) -> etree._Element:
        return xml.parse(self.part(name))

    def find_xml(self, name: str) -> etree._Element | None:
        return self.xml(name) if name in self.names else None


def _packed_otherwise() -> Unreadable:
    return refusals.unsupported("packed by a method that is not read here: pack it again as an ordinary ZIP")
