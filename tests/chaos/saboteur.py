"""Breaks things, from a seed: kills with -9, stops and continues processes, cuts and freezes links, at random times, or
at the very moment when some client passes a named point of its turn, or when the process itself passes one of its own
(failpoints.py).
"""

import asyncio
import random
import signal
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.chaos.failpoints import SERVICE_OF, order_of
from tests.chaos.mesh import REPLICAS, ChaosMesh

KILLS = {
    "chat-1": 8,
    "chat-2": 8,
    "session-1": 3,
    "session-2": 3,
    "knowledge-1": 2,
    "auth-1": 2,
    "envoy": 3,
    "nats": 2,
    "valkey": 3,
    "valkey-lost": 2,
    "postgres": 2,
    "triton": 2,
}
"""Weights. valkey-lost: killed, and its files removed."""
PAUSES = {"chat-1": 4, "chat-2": 4, "session-1": 2, "envoy": 1, "nats": 1, "valkey": 2, "postgres": 1, "triton": 1}
LINKS = {"edge": 3, "triton": 2, "valkey": 3, "postgres": 2, "nats": 1, "session-1": 1, "knowledge-1": 1}
WEIGHTS = {"kill": KILLS, "point": dict.fromkeys(SERVICE_OF, 1), "pause": PAUSES, "cut": LINKS}
KINDS = {"kill": 6, "point": 6, "pause": 4, "cut": 3, "freeze": 1}
"""How often, of 20. A point is a kill at a failpoint."""
MOMENTS = ("started", "sources", "first-word", "text_delta", "usage", "completed", "cancel")
"""Points of a turn as clients see them."""
_PAUSE_S, _CUT_S = (0.3, 4.0), (0.1, 3.0)
_READY_AGAIN_S, _MOMENT_S, _POINT_S = 60.0, 3.0, 4.0
_AT_MOMENTS = 0.3


@dataclass(frozen=True)
class Fault:
    """What to break, how long (for pauses and links), and when: after `wait_s`, then at `moment`, if one is named.

    `point`: the part kills itself as it passes this point.
    """

    kind: str  # kill, pause, cut, freeze
    target: str
    hold_s: float
    wait_s: float
    moment: str = ""
    point: str = ""

    def __str__(self) -> str:
        held = f" for {self.hold_s:.1f} s" if self.kind != "kill" else ""
        return f"{self.kind} {self.target}{held}{f' at {self.point or self.moment}' * bool(self.point or self.moment)}"


@dataclass
class Struck:
    """A fault as it happened; over when the part was ready, or the link whole, again."""

    fault: Fault
    at_s: float
    over_s: float | None = None
    missed: str = ""
    """The point that was not passed in time: it was killed all the same."""


def plan(seed: int, kills: int, mean_wait_s: float) -> list[Fault]:
    """`kills` kills, and about two other faults for every three of them.

    All comes from the seed, but nothing is left out by chance: kinds are dealt in rounds, and each kind goes once to
    each of its targets before the weights decide.
    """
    rng = random.Random(seed)
    kinds = _rounds(KINDS, rng)
    targets = {kind: _each_first(weights, rng) for kind, weights in WEIGHTS.items()}
    faults: list[Fault] = []
    done = 0
    while done < kills:
        kind = next(kinds)
        target = next(targets["cut" if kind == "freeze" else kind])
        hold_s = rng.uniform(*(_PAUSE_S if kind == "pause" else _CUT_S))
        wait_s = rng.uniform(0.2, 1.8) * mean_wait_s
        moment = rng.choice(MOMENTS) if rng.random() < _AT_MOMENTS else ""
        if kind == "point":
            service = SERVICE_OF[target]
            part = f"{service}-{rng.randint(1, REPLICAS[service])}"
            faults.append(Fault("kill", part, hold_s, wait_s, point=target))
        else:
            faults.append(Fault(kind, target, hold_s, wait_s, moment))
        done += kind in ("kill", "point")
    return faults


def _rounds(counts: Mapping[str, int], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(list(counts), sum(counts.values()), counts=list(counts.values()))


def _each_first(weights: Mapping[str, int], rng: random.Random) -> Iterator[str]:
    yield from rng.sample(list(weights), len(weights))
    while True:
        yield from rng.choices(list(weights), list(weights.values()))


class Moments:
    """Where clients say which point of a turn they pass, and the saboteur waits for it."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Event] = {}

    def passed(self, moment: str) -> None:
        if event := self._waiting.get(moment):
            event.set()

    async def next(self, moment: str, within_s: float) -> None:
        """When somebody passes it, or when it takes too long."""
        event = self._waiting[moment] = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await event.wait()


class Saboteur:
    """Works the plan off; `journal` is what came of it."""

    def __init__(self, mesh: ChaosMesh, faults: Sequence[Fault], moments: Moments, say: bool = True) -> None:
        self._mesh, self._faults, self._moments, self._say = mesh, faults, moments, say
        self._clock = asyncio.get_running_loop().time
        self.journal: list[Struck] = []
        self.done = False
        """Whether the whole plan was worked off."""
        self._began_s = self._clock()
        self._healing: set[asyncio.Task[None]] = set()

    @property
    def progress(self) -> str:
        kills = sum(struck.fault.kind == "kill" for struck in self.journal)
        return f"{len(self.journal)} of {len(self._faults)} faults struck, {kills} of them kills"

    async def work(self) -> None:
        """Until the plan is done and everything is healed."""
        try:
            for fault in self._faults:
                await asyncio.sleep(fault.wait_s)
                part = fault.target.removesuffix("-lost")
                if fault.kind in ("kill", "pause"):
                    await self._back(part)
                if fault.moment:
                    await self._moments.next(fault.moment, _MOMENT_S)
                if fault.point:
                    await self._strike_at_point(fault)
                else:
                    await self._strike(fault)
            self.done = True
            if self._healing:
                await asyncio.wait(self._healing, timeout=_READY_AGAIN_S)
        finally:
            for task in self._healing:
                task.cancel()
            await asyncio.gather(*self._healing, return_exceptions=True)

    async def _back(self, *parts: str) -> None:
        if not await self._mesh.until_ready(*parts, within_s=_READY_AGAIN_S):
            raise RuntimeError(f"{' or '.join(parts)} did not come back within {_READY_AGAIN_S:g} s")

    async def _strike_at_point(self, fault: Fault) -> None:
        """Order the part to die, or kill it when it does not come by in time."""
        service = SERVICE_OF[fault.point]
        others = {f"{service}-{number}" for number in range(1, REPLICAS[service] + 1)} - {fault.target}
        await self._back(*others)
        restarts = self._mesh.parts()[fault.target]["restarts"]
        order = order_of(self._mesh.data_dir, fault.target)
        order.give(fault.point)
        if fault.point == "after-take-over":  # there must be something to take over
            for other in others:
                await self._strike(replace(fault, target=other, point=""))
        ends_s = self._clock() + _POINT_S
        while order.passed_s() is None and self._clock() < ends_s:
            await asyncio.sleep(0.02)
        order.take_back()
        if at_s := order.passed_s():
            struck = Struck(fault, at_s)
            self._note(struck)
            self._heal(self._restarted(struck, fault.target, restarts))
        else:
            await self._strike(replace(fault, point=""), missed=fault.point)

    def _note(self, struck: Struck) -> None:
        self.journal.append(struck)
        if self._say:
            missed = f" ({struck.missed} was not passed)" if struck.missed else ""
            print(f"  {struck.at_s - self._began_s:6.1f} s  {struck.fault}{missed}", flush=True)

    async def _strike(self, fault: Fault, missed: str = "") -> None:
        part = fault.target.removesuffix("-lost")
        struck = Struck(fault, self._clock(), missed=missed)
        if fault.kind == "kill":
            restarts = self._mesh.parts()[part]["restarts"]
            while not self._mesh.signal(part, signal.SIGKILL):  # another fault was quicker
                await asyncio.sleep(0.05)
                await self._back(part)
                struck.at_s, restarts = self._clock(), self._mesh.parts()[part]["restarts"]
            if fault.target != part:
                self._mesh.lose_turn_logs()
            healing = self._restarted(struck, part, restarts)
        elif fault.kind == "pause":
            self._mesh.signal(part, signal.SIGSTOP)
            healing = self._continued(struck, part)
        else:
            link = self._mesh.links[part]
            link.cut() if fault.kind == "cut" else link.freeze()
            healing = self._mended(struck, part)
        self._note(struck)
        self._heal(healing)

    def _heal(self, healing: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(healing)
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    async def _restarted(self, struck: Struck, part: str, restarts: int) -> None:
        found = self._mesh.parts()[part]
        while found["restarts"] == restarts or found["state"] != "ready":
            await asyncio.sleep(0.05)
            found = self._mesh.parts()[part]
        struck.over_s = self._clock()

    async def _continued(self, struck: Struck, part: str) -> None:
        try:
            await asyncio.sleep(struck.fault.hold_s)
        finally:
            self._mesh.signal(part, signal.SIGCONT)
            struck.over_s = self._clock()

    async def _mended(self, struck: Struck, part: str) -> None:
        try:
            await asyncio.sleep(struck.fault.hold_s)
        finally:
            self._mesh.links[part].mend()
            struck.over_s = self._clock()
