"""What do hostile files do to the service that reads them?

Every file of the evaluation's hostile folder goes through a running mesh, with good ones between them. Goals: each
ends as indexed, failed or refused, always with a reason, within 10 s of work; every good file is indexed; the process
of knowledge grows by at most 50 MB; nothing is left of what was unpacked.

`python -m bench.hostile [each]`; without the evaluation folder it says so and measures nothing.
"""

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from bench.evalsets import FOLDER
from bench.mesh import RunningMesh, machine, running_mesh
from bench.organisation import register, sign_in
from bench.uploads import Ingested, ingest
from parley.errors.v1.error_reason_pb2 import ErrorReason

_GOOD, _EVERY = "good", 6
_MOST_S, _MOST_MB = 10.0, 50.0
_LOOK_EVERY_S = 0.05
_MB = 2**20


def files() -> Mapping[str, bytes]:
    """The hostile ones, and after each few of them a good one."""
    mixed: dict[str, bytes] = {}
    paths = [path for path in sorted((FOLDER / "hostile").rglob("*")) if path.is_file()]
    for place, path in enumerate(paths):
        mixed[f"{place}-{path.name}"] = path.read_bytes()
        if place % _EVERY == 0:
            mixed[f"{_GOOD}-{place}.md"] = f"# Lock {place}\n\nThe keeper of lock {place} is called Otto.".encode()
    return mixed


class _Memory:
    """Of the service's own process; what it starts has limits of its own."""

    def __init__(self, mesh: RunningMesh) -> None:
        self._process = mesh.processes("knowledge")[0]
        self.most_mb = 0.0

    def pss_mb(self) -> float:
        return float(self._process.memory_full_info().pss / _MB)

    def rss_mb(self) -> float:
        """Quicker to ask for."""
        return float(self._process.memory_info().rss / _MB)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        async def look() -> None:
            while True:
                self.most_mb = max(self.most_mb, self.rss_mb())
                await asyncio.sleep(_LOOK_EVERY_S)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()


async def measure(mesh: RunningMesh, temporary: str, *, each: bool = False) -> bool:
    """Whether every goal was met."""
    mixed = files()
    async with mesh.edge_channel() as edge:
        _, email = await register(edge)
        metadata = await sign_in(edge, email)
        warm = {f"warm-{number}.md": f"Warm file {number}.".encode() for number in range(8)}
        await ingest(edge, metadata, warm)
        memory = _Memory(mesh)
        before_mb, before_rss_mb = memory.pss_mb(), memory.rss_mb()
        async with memory.watched():
            done = await ingest(edge, metadata, mixed)
        grown_mb, most_mb = memory.pss_mb() - before_mb, memory.most_mb - before_rss_mb
    left = [name for name in os.listdir(temporary) if name.startswith("parley-extract-")]
    return _told(done, grown_mb, most_mb, left, each=each)


def _told(done: Sequence[Ingested], grown_mb: float, most_mb: float, left: Sequence[str], *, each: bool) -> bool:
    good = [one for one in done if one.name.startswith(_GOOD)]
    bad = [one for one in done if not one.name.startswith(_GOOD)]
    outcomes = Counter(_outcome(one) for one in bad)
    if each:
        for one in sorted(bad, key=lambda one: -one.work_s):
            print(f"  {one.work_s:5.1f} s  {one.name}: {_outcome(one)}")
    print(f"{len(bad)} hostile files, {len(good)} good ones between them, on a running mesh")
    print(f"  {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}")
    indexed, slowest = sum(one.is_indexed for one in good), max(bad, key=lambda one: one.work_s)
    print(f"  good files indexed: {indexed} of {len(good)}")
    print(f"  slowest: {slowest.work_s:.1f} s, two at a time, {slowest.name} (goal {_MOST_S:.0f} s)")
    print(f"  the process of knowledge grew by {grown_mb:.0f} MB, {most_mb:.0f} MB at most (goal {_MOST_MB:.0f} MB)")
    print(f"  folders of readers left: {len(left)}")
    said_why = all(one.is_indexed or one.refusal or (one.document and one.document.failure.message) for one in bad)
    return said_why and indexed == len(good) and slowest.work_s <= _MOST_S and most_mb <= _MOST_MB and not left


def _outcome(one: Ingested) -> str:
    if one.document is None:
        return f"refused ({one.refusal})"
    if one.is_indexed:
        return "indexed"
    return ErrorReason.Name(one.document.failure.reason).removeprefix("ERROR_REASON_")


def main(*, each: bool = False) -> bool:
    if not FOLDER.is_dir():
        print(f"hostile files: not measured, there is no {FOLDER}; PARLEY_EVAL_DIR names the evaluation folder")
        return True
    with (
        tempfile.TemporaryDirectory(prefix="parley-hostile-") as folder,
        running_mesh("--chat-models=echo", environment={"TMPDIR": folder}) as mesh,
    ):
        return asyncio.run(measure(mesh, folder, each=each))


if __name__ == "__main__":
    print(machine())
    sys.exit(0 if main(each=len(sys.argv) > 1) else 1)
