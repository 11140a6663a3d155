"""Reading files in the process of the test, for speed, and archives to read."""

import io
import zipfile

import pytest

from services.knowledge.extract.archive import Nested
from services.knowledge.extract.content import read
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Passage, cut
from services.shared.errors import Reason


def zipped(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def passages(content: bytes) -> list[Passage]:
    return list(cut(read(content).blocks))


def text(content: bytes) -> str:
    return "\n".join(passage.text for passage in passages(content))


def reason(content: bytes, nested: Nested | None = None) -> Reason:
    with pytest.raises(Unreadable) as refused:
        list(read(content, nested).blocks)
    return refused.value.failure.reason
