"""Tesseract, which recognises text in pictures, in every language that is installed with it.

It is started by an assistant of the reader: a process that does nothing else, because the reader, which a file may have
broken, starts none. So at most one Tesseract runs for a file. Each run has the reader's limits, and all end with it.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from services.knowledge.extract import sandbox
from services.knowledge.extract.refusals import corrupt
from services.knowledge.indexing import Unreadable

DOTS_PER_INCH = 300
_SETTINGS = ("--dpi", str(DOTS_PER_INCH), "-c", "min_orientation_margin=2")  # 7 leaves short pages upside down
_SCRIPT_DETECTION = "osd"  # listed among the languages
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_assistant: Connection | None = None


@cache
def find_program() -> str | None:
    return shutil.which("tesseract")


def start_assistant() -> None:
    """From here on, pictures are given to an assistant; before anything is read, and before threads are started."""
    global _assistant
    if find_program() is None:
        return
    ours, its = Pipe()
    if os.fork():
        its.close()
        _assistant = ours
    else:
        ours.close()
        _end_with_parent()
        sandbox.confine(may_start_processes=True)
        _assist(its)


def paragraphs(picture: bytes) -> Sequence[str]:
    """What is written in a picture, upright or not. Raises Unreadable, and MemoryError at a limit."""
    if _assistant is None:
        return _recognised(picture)
    try:
        _assistant.send_bytes(picture)
        answer: dict[str, Any] = json.loads(_assistant.recv_bytes())
    except (EOFError, OSError) as error:  # it ended at a limit
        raise MemoryError from error
    if not answer["is_readable"]:
        raise corrupt()
    found: Sequence[str] = answer["paragraphs"]
    return found


def _assist(reader: Connection) -> NoReturn:
    """Until the reader has ended, or a picture takes more than allowed."""
    while True:
        try:
            answer: dict[str, Any] = {"is_readable": True, "paragraphs": _recognised(reader.recv_bytes())}
        except Unreadable:
            answer = {"is_readable": False}
        except (EOFError, MemoryError):
            os._exit(0)
        reader.send_bytes(json.dumps(answer).encode())


def _recognised(picture: bytes) -> Sequence[str]:
    program = find_program()
    assert program, "a reader asks whether there is one"
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
