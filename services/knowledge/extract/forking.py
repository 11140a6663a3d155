"""Starts readers of files by forking: `python -m services.knowledge.extract.forking MEMORY_BYTES CPU_S WALL_S`.

A reader that begins from nothing imports every format first, which costs more than reading most files; one that is
forked from this process has them. No file reaches this process, so none can break it.

Its input is a socket from the service. A message asks for one reader and brings what that one is given: input, output,
log, folder, and a socket where its status is told in the end. When the service closes that socket the reader is
killed, and all are when the service has ended.
"""

import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from services.knowledge.extract.reader import OUT_OF_MEMORY, run

_DESCRIPTORS = 5
_NICE = 10
"""What is read for the index waits for what somebody waits for."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass
class _Reader:
    pid: int
    end: int  # a descriptor that becomes readable then
    asked: socket.socket


def serve(service: socket.socket, limits: tuple[int, int, float]) -> None:
    """Until the service has ended."""
    gc.freeze()  # what the collector does not touch stays shared
    with selectors.DefaultSelector() as selector:
        selector.register(service, selectors.EVENT_READ)
        while True:
            [(key, _), *_] = selector.select()
            if key.fileobj is service:
                if (started := _start(service, limits)) is None:
                    return
                selector.register(started.end, selectors.EVENT_READ, started)
                selector.register(started.asked, selectors.EVENT_READ, started)
            elif key.fileobj is key.data.asked:  # nobody waits for it any more
                selector.unregister(key.data.asked)
                signal.pidfd_send_signal(key.data.end, signal.SIGKILL)
            else:
                selector.unregister(key.data.end)
                with suppress(KeyError):
                    selector.unregister(key.data.asked)
                _finish(key.data)


def _start(service: socket.socket, limits: tuple[int, int, float]) -> _Reader | None:
    message, given, _, _ = socket.recv_fds(service, 1, _DESCRIPTORS)
    if not message:
        return None
    pid = os.fork()
    if pid == 0:
        _read(given, limits)
    for descriptor in given[:-1]:
        os.close(descriptor)
    return _Reader(pid, os.pidfd_open(pid), socket.socket(fileno=given[-1]))


def _read(given: list[int], limits: tuple[int, int, float]) -> NoReturn:
    status = 1
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for standard, descriptor in enumerate(given[:3]):
            os.dup2(descriptor, standard)
        os.fchdir(given[3])
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        run(*limits)
        sys.stdout.flush()
        status = 0
    except MemoryError:
        status = OUT_OF_MEMORY
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _finish(reader: _Reader) -> None:
    _, status = os.waitpid(reader.pid, 0)
    with suppress(OSError):
        reader.asked.send(str(os.waitstatus_to_exitcode(status)).encode())
    reader.asked.close()
    os.close(reader.end)


if __name__ == "__main__":
    os.nice(_NICE)
    with socket.socket(fileno=os.dup(0)) as given_socket:
        serve(given_socket, (int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
