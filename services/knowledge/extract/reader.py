"""Reads one file, its input, and cuts it into passages.

It runs in a process of its own, which limits itself (memory, time) and gives up what it does not need (sandbox.py)
before it reads the first byte. It writes lines of JSON: first what the file is, or why it can't be read, then a line
for each passage. It ends with status 0, or with OUT_OF_MEMORY, or by a signal: of the system for the other limits, or
because the file broke the reader.
"""

import json
import resource
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator

from services.knowledge.extract import sandbox, tesseract
from services.knowledge.extract.content import read
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Block, Passage, cut
from services.shared.errors import Reason

OUT_OF_MEMORY = 3  # the status that says so
MAX_CHARACTERS = 20_000_000
_MAX_OUTPUT_BYTES = 256 * 1024 * 1024
_TOO_MUCH_TEXT = "The file holds more text than a document may: split it and upload the parts."
_NO_TEXT = "No text was found in the file."
_CORRUPT = "The file can't be read: it is damaged or very unusual. Save it again and upload it."


def run(memory_bytes: int, cpu_s: int, wall_s: float) -> None:
    _limit(memory_bytes, cpu_s, wall_s)
    tesseract.start_assistant()
    sandbox.confine(may_start_processes=False)
    try:
        header, passages = _passages(sys.stdin.buffer.read())
    except Unreadable as error:
        header, passages = {"reason": error.failure.reason, "message": error.failure.message}, []
    except MemoryError:
        raise
    except (
        BaseException
    ):  # whatever a reader stumbles over, a panic of Rust too: it is the file's doing; the log has it
        traceback.print_exc()
        header, passages = {"reason": Reason.DOCUMENT_CORRUPT, "message": _CORRUPT}, []
    print(json.dumps(header))
    for passage in passages:
        print(json.dumps([passage.text, passage.page, passage.headings]))


def _limit(memory_bytes: int, cpu_s: int, wall_s: float) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, _MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    signal.setitimer(signal.ITIMER_REAL, wall_s)  # should the service die, this still ends


def _passages(content: bytes) -> tuple[dict[str, object], list[Passage]]:
    found = read(content)
    passages = list(cut(_bounded(found.blocks)))
    if not passages:
        raise Unreadable(Reason.DOCUMENT_WITHOUT_TEXT, _NO_TEXT)
    return {"content_type": found.content_type, "pages": found.pages, "passages": len(passages)}, passages


def _bounded(blocks: Iterable[Block]) -> Iterator[Block]:
    characters = 0
    for block in blocks:
        characters += len(block.text)
        if characters > MAX_CHARACTERS:
            raise Unreadable(Reason.EXTRACTION_LIMIT, _TOO_MUCH_TEXT)
        yield block
