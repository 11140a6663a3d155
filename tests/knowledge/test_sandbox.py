"""What the process that reads a file can't do any more, tried in a process that has given it up."""

import subprocess
import sys
from pathlib import Path

import pytest

_CONFINED = """
import os, socket, subprocess, sys, threading, ctypes, signal
from services.knowledge.extract import sandbox
sandbox.confine(may_start_processes={may_start_processes})
folder, pid = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
try:
    {attempt}
except OSError as error:
    print("refused", error.errno)
else:
    print("done")
"""
_PROCESSES = {
    "fork": "os.fork()",
    "spawn": "subprocess.run(['true'])",
    "exec": "os.execv('/bin/true', ['true'])",
    "clone": "called(libc.syscall(ctypes.c_long({'x86_64': 56}.get(os.uname().machine, 220)), 17, 0, 0, 0, 0))",
    "kill": "os.kill(pid, 0)",
}
_ANYTHING_ELSE = {
    "internet": "socket.socket(socket.AF_INET)",
    "internet 6": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "unix": "socket.socket(socket.AF_UNIX)",
    "netlink": "socket.socket(socket.AF_NETLINK)",
    "pair": "socket.socketpair()",
    "trace": "called(libc.ptrace(0, 0, 0, 0))",
    "namespace": "called(libc.unshare(0x10000000))",
    "new file": "open(folder + '/new', 'w')",
    "old file": "open(folder + '/old', 'r+')",
    "truncate": "os.truncate(folder + '/old', 0)",
    "remove": "os.unlink(folder + '/old')",
    "rename": "os.rename(folder + '/old', folder + '/new')",
    "folder": "os.mkdir(folder + '/new')",
    "link": "os.symlink('/etc', folder + '/new')",
}
_ALLOWED = {
    "thread": "thread = threading.Thread(target=print); thread.start(); thread.join()",
    "read": "open(folder + '/old').read()",
    "import": "import sqlite3.dump",
    "memory": "bytearray(50_000_000)",
    "alarm": "signal.setitimer(signal.ITIMER_REAL, 60)",
}


def _attempted(attempt: str, folder: Path, *, may_start_processes: bool) -> str:
    (folder / "old").write_text("kept")
    script = _CONFINED.format(attempt=attempt, may_start_processes=may_start_processes)
    command = (sys.executable, "-c", script, str(folder), str(subprocess.os.getpid()))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("what", [*_PROCESSES, *_ANYTHING_ELSE])
def test_a_reader_can_reach_nothing(what: str, tmp_path: Path) -> None:
    attempt = {**_PROCESSES, **_ANYTHING_ELSE}[what]
    assert _attempted(attempt, tmp_path, may_start_processes=False).startswith("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "kept"


@pytest.mark.parametrize("what", _ANYTHING_ELSE)
def test_text_recognition_can_start_processes_and_nothing_else(what: str, tmp_path: Path) -> None:
    assert _attempted(_ANYTHING_ELSE[what], tmp_path, may_start_processes=True).startswith("refused")
    assert _attempted(_PROCESSES["spawn"], tmp_path, may_start_processes=True) == "done"


@pytest.mark.parametrize("what", _ALLOWED)
def test_what_readers_need_goes_on(what: str, tmp_path: Path) -> None:
    assert _attempted(_ALLOWED[what], tmp_path, may_start_processes=False).endswith("done")
