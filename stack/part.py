"""A part: one process that the supervisor keeps running, and how it is known to work.

Every component file (`postgres.py`, `nats.py`, ...) describes itself as a `Part` and nothing else; only the
supervisor starts and stops processes.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Hook = Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal environment; nothing else of the caller's environment is passed on."""
    cwd: Path | None = None
    needs: tuple[str, ...] = ()
    """Names of the parts that must be ready before this one starts."""
    prepare: Hook | None = None
    """Runs before each start: create the store, write the configuration."""
    ready: Hook
    """Raises until the part really answers; retried until start_timeout_s is over."""
    after_ready: Hook | None = None
    """Runs after each start, before anything that needs this part: create roles, declare streams. Idempotent."""
    noticed: Hook | None = None
    """Raises until whoever calls this part has found it again; a rolling restart waits for it."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10
    start_timeout_s: float = 30
    advice: str
    """What the operator can do when this part does not start."""


class StartFailed(Exception):
    """A part did not start. Carries what an operator needs: which one, why, the end of its log, and what to do."""

    def __init__(self, part: str, reason: str, advice: str, log_tail: str = "") -> None:
        super().__init__(f"{part}: {reason}")
        self.part, self.reason, self.advice, self.log_tail = part, reason, advice, log_tail

    def told(self) -> dict[str, str]:
        """As status.json and the answer to a command have it."""
        return {"part": self.part, "reason": self.reason, "advice": self.advice, "log_tail": self.log_tail}


async def accepts_connection(port: int) -> None:
    """Raises OSError unless something on loopback accepts a connection on this port."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


async def run_to_end(*command: str, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> str:
    """Run a helper program; its output. Raises RuntimeError with the end of it when it fails or takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        raise RuntimeError(f"{command[0]} did not finish in {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:3])} ended with status {process.returncode}:\n{text[-2000:]}")
    return text
