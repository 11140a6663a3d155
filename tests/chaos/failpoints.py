"""`python -m tests.chaos.failpoints SERVICE`: that service, dying by -9 at a named point, once, when a file says so.

The product has no switch for it: before the service starts, the methods of the table below are replaced by ones that
look for an order as they begin or end. A method that is not there any more ends the process before it serves, so a
mesh with failpoints that nobody passes does not start.
"""

import importlib
import inspect
import os
import runpy
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

ORDER = "CHAOS_FAILPOINT"
"""Variable with the path of the file in which the process finds the name of the point at which it is to die."""


@dataclass(frozen=True)
class Point:
    """Where in which coroutine method. After: only when it returned something, such as turns that were taken over."""

    method: str
    """module:Class.method"""
    before: bool = False


POINTS: Mapping[str, Mapping[str, Point]] = {
    "chat": {
        "after-claim": Point("services.chat.store:StoredTurns.claim"),
        "after-open-turn": Point("services.chat.peers:SessionPeer.open_turn"),
        "before-append": Point("services.chat.turnlog:ValkeyTurnLog.append", before=True),
        "after-append-before-deliver": Point("services.chat.turnlog:ValkeyTurnLog.append"),
        "before-close-turn": Point("services.chat.peers:SessionPeer.close_turn", before=True),
        "after-close-turn": Point("services.chat.peers:SessionPeer.close_turn"),
        "after-finish-before-last-event": Point("services.chat.store:StoredTurns.finish"),
        "after-cancel-wish": Point("services.chat.store:StoredTurns.request_cancel"),
        "after-take-over": Point("services.chat.store:StoredTurns.take_over"),
    },
    "session": {
        "after-open-committed": Point("services.session.store:StoredTurns.open"),
        "after-close-committed": Point("services.session.store:StoredTurns.close"),
    },
}
SERVICE_OF = {name: service for service, points in POINTS.items() for name in points}


class Order:
    """The file between the harness and one process."""

    def __init__(self, path: Path) -> None:
        self._path, self._passed = path, path.with_suffix(".passed")

    def give(self, point: str) -> None:
        """Whoever passes this point next dies."""
        self._passed.unlink(missing_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.write_text(point)
        draft.rename(self._path)

    def take_back(self) -> None:
        """Nobody is to die."""
        self._path.unlink(missing_ok=True)

    def passed_s(self) -> float | None:
        """The monotonic time at which a process died by it."""
        with suppress(FileNotFoundError, ValueError):
            return float(self._passed.read_text())
        return None

    def die_if_told(self, point: str) -> None:
        """In the process."""
        if self._path.exists() and self._path.read_text() == point:
            self._passed.write_text(str(time.monotonic()))
            self._path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def order_of(data_dir: Path, part: str) -> Order:
    return Order(order_file(data_dir, part))


def order_file(data_dir: Path, part: str) -> Path:
    folder = data_dir / "failpoints"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / part


def install(points: Mapping[str, Point], order: Order) -> None:
    """Raises LookupError for a point that names no coroutine method."""
    for name, point in points.items():
        module, _, path = point.method.partition(":")
        owner_name, _, method = path.partition(".")
        owner = getattr(importlib.import_module(module), owner_name, None)
        original = vars(owner).get(method) if inspect.isclass(owner) else None
        if not inspect.iscoroutinefunction(original):
            raise LookupError(f"the failpoint {name} stands at {point.method}, which is not there")
        setattr(owner, method, _deadly(original, name, point.before, order))


def _deadly(original: Callable[..., Awaitable[Any]], name: str, before: bool, order: Order) -> Any:
    @wraps(original)
    async def passing(*args: Any, **kwargs: Any) -> Any:
        if before:
            order.die_if_told(name)
        result = await original(*args, **kwargs)
        if not before and result not in ([], ()):
            order.die_if_told(name)
        return result

    return passing


def main() -> None:
    service = sys.argv.pop(1)
    install(POINTS[service], Order(Path(os.environ[ORDER])))
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
