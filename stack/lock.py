"""One supervisor per data directory: a lock on DIR/supervisor.lock, released by the kernel however its holder ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


class AlreadyRunning(Exception):
    def __init__(self, data_dir: Path, pid: int) -> None:
        super().__init__(f"a mesh is already running in {data_dir} (pid {pid})")
        self.data_dir, self.pid = data_dir, pid


@contextlib.contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Raises AlreadyRunning when another supervisor has the lock."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with _path(data_dir).open("a+") as file:
        if not _acquire(file.fileno()):
            raise AlreadyRunning(data_dir, holder(data_dir) or 0)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _acquire(descriptor: int) -> bool:
    # `holder` takes the lock for an instant to look; that must not make a start fail.
    for _ in range(5):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def holder(data_dir: Path) -> int | None:
    """Pid of the running supervisor, or None."""
    try:
        with _path(data_dir).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
    except (FileNotFoundError, NotADirectoryError):
        pass
    return None


def _path(data_dir: Path) -> Path:
    return data_dir / "supervisor.lock"
