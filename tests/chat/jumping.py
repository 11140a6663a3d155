"""A loop whose clock jumps to whatever is waited for: nothing in it waits for the world."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")


def in_no_time(work: Coroutine[None, None, T]) -> T:
    """Run it in such a loop of its own."""
    loop = JumpingLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.finish()


class JumpingLoop(asyncio.SelectorEventLoop):
    """When all sleep, it is the time at which the first one wakes."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(JumpingSelector(self._jump))

    def time(self) -> float:
        return self._now_s

    def _jump(self, seconds: float) -> None:
        self._now_s += seconds

    def finish(self) -> None:
        """Cancel what is left, and close."""
        while tasks := asyncio.all_tasks(self):  # what a dead replica still does may wait for ever again
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=0.01))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()


class JumpingSelector(selectors.SelectSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for ever"
        if timeout > 0:
            self._jump(timeout)
        return super().select(0)
