"""The mesh under test, as the harness starts, watches and stops it."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from stack.mesh import PROJECT
from tests.chaos import up
from tests.chaos.links import Link

CHAT_LINKS = ("triton", "valkey", "postgres", "nats", "session-1", "session-2", "knowledge-1", "knowledge-2")
REPLICAS = {"chat": 2, "session": 2}
_START_S, _STOP_S = 120.0, 100.0


class ChaosMesh:
    """Processes by part name, and links by listener; "edge" is the clients' own link."""

    def __init__(self, data_dir: Path, links: Mapping[str, Link]) -> None:
        self.data_dir, self.links = data_dir, links

    @property
    def edge(self) -> str:
        return f"127.0.0.1:{self.links['edge'].port}"

    def parts(self) -> dict[str, Any]:
        return dict(json.loads((self.data_dir / "status.json").read_text())["parts"])

    def is_ready(self, part: str) -> bool:
        return bool(self.parts()[part]["state"] == "ready")

    async def until_ready(self, *parts: str, within_s: float) -> bool:
        """False when they are not in time. All parts when none is named."""
        ends_s = time.monotonic() + within_s
        while not all(found["state"] == "ready" for name, found in self.parts().items() if name in parts or not parts):
            if time.monotonic() > ends_s:
                return False
            await asyncio.sleep(0.02)
        return True

    def signal(self, part: str, number: signal.Signals) -> bool:
        """To the part's process and all that it started; false when it does not run."""
        pid = self.parts()[part]["pid"]
        try:
            root = psutil.Process(pid)
            # The children first: a process that is gone no longer tells them.
            for process in (*root.children(recursive=True), root) if number != signal.SIGKILL else (root,):
                process.send_signal(number)
        except (psutil.NoSuchProcess, TypeError):
            return False
        return True

    def lose_turn_logs(self) -> None:
        """Remove Valkey's files, as a lost disk would."""
        for path in (self.data_dir / "valkey").rglob("*"):
            if path.is_file() and path.suffix in (".aof", ".rdb", ".manifest"):
                path.unlink(missing_ok=True)


@asynccontextmanager
async def running_mesh(
    data_dir: Path,
    replicas: Mapping[str, int] = REPLICAS,
    models: Sequence[str] = ("echo",),
    **environment: str,
) -> AsyncIterator[ChaosMesh]:
    """Started, with every link in place; stopped at the end, its data kept."""

    def port_of(listener: str) -> int:
        return int(json.loads((data_dir / "endpoints.json").read_text())["ports"][listener])

    links = {name: Link(name, lambda name=name: port_of(name)) for name in CHAT_LINKS}
    links["edge"] = Link("edge", lambda: port_of("edge-http"))
    for link in links.values():
        await link.open()
    log = data_dir / "chaos-up.log"
    with _opened(log) as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.up",
            str(data_dir),
            cwd=PROJECT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={
                **os.environ,
                "PARLEY_EDGE_REQUESTS_PER_S": "1000000",
                "PARLEY_EDGE_BURST": "1000000",
                up.LINKS: json.dumps({name: links[name].port for name in CHAT_LINKS}),
                up.REPLICAS: json.dumps(replicas),
                up.MODELS: ",".join(models),
                **environment,
            },
        )
    mesh = ChaosMesh(data_dir, links)
    try:
        await _until_up(process, mesh, log)
        yield mesh
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), _STOP_S)
        for link in links.values():
            await link.close()


def _opened(log: Path) -> IO[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")


def _end_of(log: Path) -> str:
    return log.read_text()[-3000:]


def _status(data_dir: Path) -> dict[str, Any]:
    """Empty before the first start."""
    try:
        return dict(json.loads((data_dir / "status.json").read_text()))
    except FileNotFoundError:
        return {}


async def _until_up(process: asyncio.subprocess.Process, mesh: ChaosMesh, log: Path) -> None:
    ends_s = time.monotonic() + _START_S
    while True:
        if process.returncode is not None or time.monotonic() > ends_s:
            raise RuntimeError(f"the mesh did not start:\n{_end_of(log)}")
        status = _status(mesh.data_dir)
        if status.get("pid") == process.pid and status["state"] == "ready":
            return
        await asyncio.sleep(0.1)
