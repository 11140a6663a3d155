"""One run of a part: launched in a session of its own, watched until it answers, stopped with everything it
started.

A part dies with its supervisor, whatever kills that one: the kernel sends the signal (PDEATHSIG). What a
part itself started is reached through its process group and through the part's log, into which it writes; after
a supervisor's own sudden death, also through the mark in its environment. PostgreSQL's backends each have a group of
their own, and overwrite their environment by the title that `ps` shows: only the log tells whose they are.
"""

import asyncio
import contextlib
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from stack.part import Hook, Part, StartFailed

MARK = "PARLEY_MESH"
"""Variable that every process of a mesh carries; its value is the data directory."""
SUPERVISOR_LOG = "supervisor.log"
"""Beside the logs of the parts; what writes there is no part."""
MAX_LOG_BYTES = 16 * 1024 * 1024
TAIL_LINES = 15
LONGEST_END_S = 5.0
PASSED_ON = ("HOME", "LANG", "TMPDIR", "TZ", "SSL_CERT_FILE")


class Process:
    def __init__(self, part: Part, log_file: Path, data_dir: Path) -> None:
        self._part, self._log_file, self._data_dir = part, log_file, data_dir
        self._log_start = 0
        self._last_answer = "it was not asked yet"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Prepare, launch, wait until the part answers, finish. Raises StartFailed, and leaves nothing running then."""
        part = self._part
        try:
            async with asyncio.timeout(part.start_timeout_s):
                trim_log(self._log_file)
                self._log_start = self._log_file.stat().st_size if self._log_file.exists() else 0
                if part.prepare:
                    await part.prepare()
                await self._launch()
                await self._until_ready()
                if part.after_ready:
                    await part.after_ready()
        except BaseException as failure:
            await self.stop()
            if isinstance(failure, StartFailed) or not isinstance(failure, Exception):
                raise
            late = f"did not answer within {part.start_timeout_s:g} s ({self._last_answer})"
            raise self._failed(late if isinstance(failure, TimeoutError) else describe(failure)) from failure

    async def answers(self) -> bool:
        """Whether the part answers now."""
        return await attempt(self._part.ready) is None

    async def wait(self) -> int:
        """Exit status, negative for a signal."""
        assert self._process
        return await self._process.wait()

    async def stop(self) -> None:
        """Ask the part to stop, wait, then kill whatever is left of what it started, even if that stands still."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self._part.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self._part.stop_timeout_s)
            except TimeoutError:
                self._note(f"did not stop within {self._part.stop_timeout_s:g} s and was killed")
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        # A stopped backend of PostgreSQL would hold the shared memory, and the next postmaster refuse to start.
        if left := list(writers(self._log_file)):
            await asyncio.to_thread(end, left)
        self._process = None  # its pid may soon be somebody else's

    async def _launch(self) -> None:
        part = self._part
        # setpriv sets the death signal after the fork, with no Python code between fork and exec.
        command = ("setpriv", "--pdeathsig", "KILL", "--", *part.command)
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=self._environment(),
                cwd=part.cwd or self._data_dir,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        return {"LANG": "C.UTF-8", **kept, "PATH": path, MARK: str(self._data_dir), **self._part.env}

    async def _until_ready(self) -> None:
        exited = asyncio.create_task(self.wait())
        pause_s = 0.02
        try:
            while True:
                asked = asyncio.create_task(attempt(self._part.ready))
                await asyncio.wait({exited, asked}, return_when=asyncio.FIRST_COMPLETED)
                if exited.done():
                    asked.cancel()
                    raise self._failed(describe_exit(exited.result()))
                if (answer := asked.result()) is None:
                    return
                self._last_answer = answer
                await asyncio.wait({exited}, timeout=pause_s)
                pause_s = min(pause_s * 1.5, 0.25)
        finally:
            exited.cancel()

    def _failed(self, reason: str) -> StartFailed:
        return StartFailed(self._part.name, reason, self._part.advice, self.log_tail())

    def log_tail(self) -> str:
        """The last lines that this run wrote."""
        try:
            with self._log_file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start if self._log_start <= size else 0, size - 8192))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-TAIL_LINES:])

    def _note(self, text: str) -> None:
        with self._log_file.open("a") as log:
            log.write(f"parley: {self._part.name} {text}\n")


async def attempt(probe: Hook) -> str | None:
    """None when the part answered, else why it did not."""
    try:
        async with asyncio.timeout(5):
            await probe()
    except Exception as error:  # whatever a probe raises means: not yet
        return describe(error)
    return None


def describe(error: BaseException) -> str:
    """In words for a person; a RuntimeError of ours says it all by itself."""
    if isinstance(error, RuntimeError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def describe_exit(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def trim_log(path: Path) -> None:
    """Keep one older log. Copied and cut, not moved: a running part goes on appending to the same file."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)


def writers(*log_files: Path) -> Iterator[psutil.Process]:
    """Processes whose output goes into one of these files, as that of a part and of all that it starts does."""
    files = [log.stat() for log in log_files if log.exists()]
    for process in psutil.process_iter():
        if process.pid != os.getpid() and any(
            os.path.samestat(output, file) for output in _outputs(process.pid) for file in files
        ):
            yield process


def _outputs(pid: int) -> Iterator[os.stat_result]:
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed, ended, or somebody else's
            yield Path(f"/proc/{pid}/fd/{descriptor}").stat()


def leftovers(data_dir: Path) -> Iterator[psutil.Process]:
    """Processes of a mesh in this directory that outlived their supervisor."""
    logs = (log for log in (data_dir / "logs").glob("*.log") if log.name != SUPERVISOR_LOG)
    writing = set(writers(*logs))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid():
                continue
            if process in writing or process.environ().get(MARK) == str(data_dir):
                yield process


def end_leftovers(data_dir: Path) -> list[int]:
    """Kill them; their pids."""
    found = list(leftovers(data_dir))
    end(found)
    return [process.pid for process in found]


def end(processes: Sequence[psutil.Process]) -> None:
    """Kill them and wait until they are gone, whether or not anybody reaps them then: in a container init may not."""
    gone: list[int] = []
    for process in processes:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            gone.append(os.pidfd_open(process.pid))
            process.kill()
    until_s = time.monotonic() + LONGEST_END_S
    for descriptor in gone:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll(max(0.0, until_s - time.monotonic()) * 1000)
        os.close(descriptor)
