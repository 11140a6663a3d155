"""Text recognition in pictures, by Tesseract where the machine has it, in every language that is installed with it.

Tesseract runs as a process below this one, within the same limits for each run, and ends with this one.
"""

import ctypes
import shutil
import signal
import subprocess
from functools import cache

from services.knowledge.extract.refusals import corrupt
from services.knowledge.extract.sections import Read
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Block
from services.shared.errors import Reason

DOTS_PER_INCH = 300
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}
_SETTINGS = ("--dpi", str(DOTS_PER_INCH), "-c", "min_orientation_margin=2")  # 7 leaves short pages upside down
_SCRIPT_DETECTION = "osd"  # listed among the languages
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def find_type(content: bytes) -> str | None:
    """The content type of a picture; None if it is something else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    found = (kind for begin, kind in _SIGNATURES.items() if content.startswith(begin))
    kind = next(found, None)
    return None if kind == "image/bmp" and content[6:10] != bytes(4) else kind


def read(content: bytes, content_type: str) -> Read:
    """The paragraphs in a picture. Raises Unreadable."""
    return Read(content_type, [Block(paragraph, 1) for paragraph in paragraphs(content)], 1)


@cache
def find_program() -> str | None:
    return shutil.which("tesseract")


def missing() -> Unreadable:
    """Why a picture of text is no text here."""
    message = "The file is a scan or a picture, and text recognition (OCR) is not installed here."
    return Unreadable(Reason.DOCUMENT_WITHOUT_TEXT, f"{message} Run it over the file and upload the result.")


def paragraphs(picture: bytes) -> list[str]:
    """What is written in a picture, upright or not. Raises Unreadable."""
    if (program := find_program()) is None:
        raise missing()
    languages = _languages(program)
    # Automatic segmentation; turned upright first where the data to see that is installed.
    mode = "1" if _SCRIPT_DETECTION in languages else "3"
    wanted = "+".join(language for language in languages if language != _SCRIPT_DETECTION)
    done = _run((program, "stdin", "stdout", "-l", wanted, "--psm", mode, *_SETTINGS), picture)
    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        raise MemoryError
    if done.returncode != 0:
        raise corrupt()
    return [paragraph for paragraph in done.stdout.decode(errors="replace").split("\n\n") if paragraph.strip()]


@cache
def _languages(program: str) -> tuple[str, ...]:
    """English first: what comes first counts most."""
    listed = _run((program, "--list-langs"), b"").stdout.decode().split("\n")[1:]
    return tuple(sorted(filter(None, listed), key=lambda language: (language != "eng", language)))


def _run(command: tuple[str, ...], given: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, input=given, capture_output=True, check=False, preexec_fn=_end_with_parent,
        env={"OMP_THREAD_LIMIT": "1", "LANG": "C.UTF-8"},
    )  # fmt: skip


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
