"""`python -m tests.chaos`: turns while the mesh is broken at random; the table, and 1 when anything was lost."""

import argparse
import asyncio
import os
import resource
import secrets
import tempfile
import time
from pathlib import Path

import psutil

from bench.mesh import machine
from tests.chaos.mesh import running_mesh
from tests.chaos.report import passed, table
from tests.chaos.run import Load, Outcome, run, signed_in
from tests.chaos.saboteur import Moments, Saboteur, plan
from tests.chaos.verdict import Violation, judge


async def chaos(load: Load, kills: int, mean_wait_s: float, data_dir: Path) -> tuple[Outcome, list[Violation]]:
    """A whole run on a mesh of its own."""
    began, own_began_s, began_s = psutil.cpu_times(), _own_s(), time.monotonic()
    async with running_mesh(data_dir) as mesh, signed_in(mesh.edge, load.users) as users:
        moments = Moments()
        saboteur = Saboteur(mesh, plan(load.seed, kills, mean_wait_s), moments)
        outcome = await run(users, load, moments, saboteur)
    ended = psutil.cpu_times()
    offered_s = (time.monotonic() - began_s) * (os.cpu_count() or 1)
    busy_s = offered_s - (ended.idle - began.idle) - (ended.iowait - began.iowait)
    outcome.busy = busy_s / offered_s
    outcome.busy_elsewhere = max(0.0, busy_s - (_own_s() - own_began_s)) / offered_s
    return outcome, judge(outcome.stories, outcome.record)


def _own_s() -> float:
    """Processor time of this process and of all that it started and that has ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--turns", type=int, default=2000, help="at least so many")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--kills", type=int, default=300, help="with -9; pauses and cut links come on top")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--every", type=float, default=3.0, metavar="S", help="mean seconds between faults")
    parser.add_argument("--minutes", type=float, default=45, help="the longest it may take")
    parser.add_argument("--flaw", action="append", default=[], help="break the clients: drop, repeat, misread, lazy")
    parser.add_argument("--data-dir", type=Path, help="keeps the data and the logs of the mesh")
    given = parser.parse_args()
    print(machine())
    print(
        f"seed {given.seed}: {given.turns} turns by {given.users} users, {given.kills} kills, a fault every "
        f"{given.every:g} s on average",
        flush=True,
    )
    load = Load(given.turns, given.users, given.seed, flaws=frozenset(given.flaw), at_most_s=given.minutes * 60)
    with tempfile.TemporaryDirectory(prefix="parley-chaos-") as folder:
        where = given.data_dir or Path(folder)
        outcome, violations = asyncio.run(chaos(load, given.kills, given.every, where))
    print(table(outcome, violations))
    good = passed(outcome, violations)
    print("passed" if good else f"FAILED (seed {given.seed})")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
