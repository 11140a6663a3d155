"""Politeness: how many requests one host gets at once from this process, and how far apart."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

AT_ONCE = 2
_FORGOTTEN_BEYOND = 1000
_HOLD, _MOST_HOLD_S = 20, 30.0
"""Of a host that is asked too often: so many times the usual delay, and the longest."""


@dataclass
class _Host:
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    next_s: float = 0.0
    users: int = 0


class Pace:
    """Shared by all crawls of a process: two organisations that read one site ask it no more often than one."""

    def __init__(
        self,
        least_delay_s: float,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._least_delay_s = least_delay_s
        self._clock_s = clock_s
        self._sleep = sleep
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, host: str, delay_s: float) -> AsyncIterator[None]:
        """Entered when the host may be asked; it counts as asked until left."""
        known = self._hosts.setdefault(host, _Host())
        known.users += 1
        try:
            async with known.slots:
                now_s = self._clock_s()
                wait_s = known.next_s - now_s
                known.next_s = max(now_s, known.next_s) + max(delay_s, self._least_delay_s)
                if wait_s > 0:
                    await self._sleep(wait_s)
                yield
        finally:
            known.users -= 1
            if len(self._hosts) > _FORGOTTEN_BEYOND:
                self._forget()

    def hold(self, host: str, seconds: float) -> None:
        """Leave a host alone that is asked too often; a while if it does not say for how long."""
        known = self._hosts.setdefault(host, _Host())
        wait_s = min(max(seconds, _HOLD * self._least_delay_s), _MOST_HOLD_S)
        known.next_s = max(known.next_s, self._clock_s() + wait_s)

    def _forget(self) -> None:
        now_s = self._clock_s()
        self._hosts = {name: host for name, host in self._hosts.items() if host.users or host.next_s > now_s}
