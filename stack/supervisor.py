"""Keeps the parts of one mesh running, and says in status.json how they are.

Parts start as soon as what they need is ready, all others in parallel; they stop in reverse. A part that
does not start the first time ends the whole start. One that dies later is started again, after a pause that
doubles while it keeps dying. A planned restart is a stop and a start without a pause, one part after the other.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stack.mesh import write_atomically
from stack.part import Part, StartFailed
from stack.process import Process, attempt, describe_exit, trim_log

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
"""A part that ran this long is forgiven its earlier deaths."""
LOG_CHECK_INTERVAL_S = 60.0
ASK_INTERVAL_S = 15.0
"""How often a running part is asked whether it still answers: one that hangs has not died."""
SETTLING_S = 0.6
"""Between a part that is back and the stop of the next one: peers have connected to it anew (channel.py)."""
LONGEST_NOTICE_S = 10.0
NOTICE_INTERVAL_S = 0.1


class Supervisor:
    def __init__(
        self,
        parts: Iterable[Part],
        data_dir: Path,
        first_pause_s: float = FIRST_PAUSE_S,
        ask_interval_s: float = ASK_INTERVAL_S,
    ) -> None:
        self.data_dir, self.ask_interval_s = data_dir, ask_interval_s
        self._keepers = {part.name: Keeper(part, self, first_pause_s) for part in parts}
        for keeper in self._keepers.values():
            unknown = [name for name in keeper.part.needs if name not in self._keepers]
            if unknown:
                raise ValueError(f"{keeper.part.name} needs parts that are not here: {', '.join(unknown)}")
        self._state = "starting"
        self._began = time.monotonic()
        self._ready_after_s: float | None = None
        self._since = datetime.now(UTC)
        self._failure: StartFailed | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._restarting = asyncio.Lock()

    async def start(self) -> None:
        """Until every part is ready. Raises StartFailed for the first that fails, after everything was stopped."""
        self.report()
        for keeper in self._keepers.values():
            keeper.task = asyncio.create_task(keeper.keep(), name=keeper.part.name)
        all_ready = asyncio.create_task(self.wait_ready(self._keepers))
        tasks = [keeper.task for keeper in self._keepers.values() if keeper.task]
        try:
            # A keeper only ever ends by failing its first start.
            await asyncio.wait([all_ready, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            all_ready.cancel()
        if ended := [task for task in tasks if task.done()]:
            await self.stop(failure=ended[0].exception())
            ended[0].result()
        self._state, self._ready_after_s = "ready", round(time.monotonic() - self._began, 2)
        self._trimming = asyncio.create_task(self._trim_logs())
        self.report()

    async def stop(self, failure: BaseException | None = None) -> None:
        """Stop every part, users before what they use."""
        self._state = "stopping"
        self._failure = failure if isinstance(failure, StartFailed) else None
        if self._trimming:
            self._trimming.cancel()
        self.report()
        await asyncio.gather(*(self._stop_after_users(keeper) for keeper in self._keepers.values()))
        self._state = "failed" if failure else "stopped"
        self.report()

    async def watch(self) -> None:
        """Returns only if a part is no longer looked after, which is a defect of this program."""
        tasks = [keeper.task for keeper in self._keepers.values() if keeper.task]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            logging.getLogger(__name__).error(
                "%s is no longer looked after", task.get_name(), exc_info=task.exception()
            )

    def select(self, name: str) -> list[str]:
        """The part of this name, or the replicas of the service of this name. Raises KeyError."""
        if found := [part for part in self._keepers if name in (part, part.rpartition("-")[0])]:
            return found
        raise KeyError(name)

    async def restart(self, names: Iterable[str]) -> AsyncIterator[tuple[str, float]]:
        """Restart these parts one after the other; each with the seconds it was away.

        Raises StartFailed for one that does not come back: the rest is left alone, and the supervisor goes on trying.
        """
        async with self._restarting:
            previous: Keeper | None = None
            for name in names:
                if previous:
                    await previous.noticed()
                    await asyncio.sleep(SETTLING_S)
                previous = self._keepers[name]
                began = time.monotonic()
                await previous.restart()
                yield name, round(time.monotonic() - began, 2)

    async def wait_ready(self, names: Iterable[str]) -> None:
        for name in names:
            await self._keepers[name].ready.wait()

    async def _stop_after_users(self, keeper: "Keeper") -> None:
        users = (other for other in self._keepers.values() if keeper.part.name in other.part.needs)
        await asyncio.gather(*(user.stopped.wait() for user in users))
        await keeper.stop()

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_INTERVAL_S)
            for keeper in self._keepers.values():
                trim_log(keeper.log_file)

    def status(self) -> dict[str, Any]:
        failure = self._failure
        down = any(keeper.state != "ready" for keeper in self._keepers.values())
        return {
            "state": "degraded" if self._state == "ready" and down else self._state,
            "pid": os.getpid(),
            "since": self._since.isoformat(timespec="seconds"),
            "ready_after_s": self._ready_after_s,
            "parts": {name: keeper.status() for name, keeper in self._keepers.items()},
            "failure": failure and failure.told(),
        }

    def report(self) -> None:
        """Write status.json."""
        # A full disk must not end the parts that still run.
        with contextlib.suppress(OSError):
            write_atomically(self.data_dir / "status.json", json.dumps(self.status(), indent=1) + "\n", durable=False)


class Keeper:
    """Starts one part, and starts it again each time it ends."""

    def __init__(self, part: Part, supervisor: Supervisor, first_pause_s: float) -> None:
        self.part, self._supervisor, self._first_pause_s = part, supervisor, first_pause_s
        self.log_file = supervisor.data_dir / "logs" / f"{part.name}.log"
        self.log_file.parent.mkdir(mode=0o700, exist_ok=True)
        self.state = "waiting"
        self.task: asyncio.Task[None] | None = None
        self.ready, self.stopped = asyncio.Event(), asyncio.Event()
        self._process = Process(part, self.log_file, supervisor.data_dir)
        self._asked = asyncio.Event()
        self._planned: asyncio.Future[None] | None = None
        self._restarts = self._planned_restarts = 0
        self._ready_after_s: float | None = None
        self._last_end: str | None = None
        self._since = datetime.now(UTC)

    async def keep(self) -> None:
        await self._supervisor.wait_ready(self.part.needs)
        await self._start("starting")
        deaths = 0
        while True:
            ready_at = time.monotonic()
            ended = await self._end()
            if ended is None:
                deaths, self._planned_restarts = 0, self._planned_restarts + 1
                self._become("stopping")
            else:
                deaths = 1 if time.monotonic() - ready_at > STEADY_AFTER_S else deaths + 1
                self._last_end = describe_exit(ended)
            await self._process.stop()  # what it started may outlive it
            deaths = await self._start_again(deaths)

    async def restart(self) -> None:
        """Stop and start the part, which ends a pause after a death; returns when it is ready. Raises StartFailed."""
        self._planned = asyncio.get_running_loop().create_future()
        self._asked.set()
        await self._planned

    async def noticed(self) -> None:
        """Until the part's callers have found it, or long enough."""
        latest = time.monotonic() + LONGEST_NOTICE_S
        while self.part.noticed and await attempt(self.part.noticed) and time.monotonic() < latest:  # noqa: ASYNC110
            await asyncio.sleep(NOTICE_INTERVAL_S)

    async def _end(self) -> int | None:
        """The exit status of the process; None when a restart is asked for first.

        Meanwhile the part's state shows whether it still answers.
        """
        asking = asyncio.create_task(self._keep_asking())
        exited, asked = asyncio.ensure_future(self._process.wait()), asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({exited, asked}, return_when=asyncio.FIRST_COMPLETED)
            return exited.result() if exited.done() else None
        finally:
            exited.cancel()
            asked.cancel()
            asking.cancel()

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(self._supervisor.ask_interval_s)
            state = "ready" if await self._process.answers() else "not answering"
            if state != self.state:
                self._become(state)

    async def _start_again(self, deaths: int) -> int:
        """Until the part is ready; deaths in a row so far, 0 for a planned restart."""
        while True:
            if deaths:
                self._restarts += 1
                self._become("waiting to restart")
                with contextlib.suppress(TimeoutError):
                    pause_s = min(self._first_pause_s * 2 ** (deaths - 1), LONGEST_PAUSE_S)
                    await asyncio.wait_for(self._asked.wait(), pause_s)
            try:
                await self._start("restarting")
            except StartFailed as failure:
                self._last_end = str(failure)
                deaths += 1
                self._answer(failure)
            else:
                self._answer(None)
                return deaths

    def _answer(self, failure: StartFailed | None) -> None:
        """To whoever asked for a restart, also when a start was under way already: that one was as good."""
        self._asked.clear()
        if self._planned and not self._planned.done():
            if failure:
                self._planned.set_exception(failure)
            else:
                self._planned.set_result(None)

    async def _start(self, state: str) -> None:
        self._become(state)
        began = time.monotonic()
        try:
            await self._process.start()
        except StartFailed:
            self._become("failed")
            raise
        self._ready_after_s = round(time.monotonic() - began, 2)
        self._become("ready")
        self.ready.set()

    async def stop(self) -> None:
        failed = self.state == "failed"
        if not failed:
            self._become("stopping")
        if self.task:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self._process.stop()
        if not failed:
            self._become("stopped")
        self.stopped.set()

    def _become(self, state: str) -> None:
        self.state, self._since = state, datetime.now(UTC)
        self._supervisor.report()

    def status(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "pid": self._process.pid,
            "since": self._since.isoformat(timespec="seconds"),
            "ready_after_s": self._ready_after_s,
            "restarts": self._restarts,
            "planned_restarts": self._planned_restarts,
            "last_end": self._last_end,
            "log": str(self.log_file),
        }
