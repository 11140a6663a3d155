"""A process of its own for what a hostile file may break.

The child gets its input and output as files, no variable of our environment but PATH, and an empty folder to stand in.
It limits itself (extract/limits.py) and gives up what it does not need (extract/sandbox.py).
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

LIMIT_SIGNALS = frozenset({signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM, signal.SIGXFSZ})
"""By these a process ends that went beyond a limit."""
_IMPORT_ROOT = Path(__file__).parents[2]


async def run(command: Sequence[str], wall_s: float, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> int:
    """The status of the child, negative for a signal; it is killed after `wall_s`, and when the caller is cancelled."""
    environment = {
        "PYTHONPATH": str(_IMPORT_ROOT),
        "PATH": os.environ.get("PATH", os.defpath),  # where text recognition is looked for
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",
    }
    with tempfile.TemporaryDirectory(prefix="parley-extract-") as folder:
        child = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdin=stdin, stdout=stdout, stderr=stderr
        )
        try:
            async with asyncio.timeout(wall_s):
                return await child.wait()
        except TimeoutError:
            return -signal.SIGALRM
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
