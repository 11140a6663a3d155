"""Memory of a process with all that it started, each shared page counted once among those who share it (PSS)."""

import contextlib

import psutil


def pss_bytes(pid: int) -> int:
    """0 when the process is gone or belongs to somebody else."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total
