"""The mesh under measurement: started for the run with the `echo` model, so that the model is not what is measured."""

import contextlib
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from stack.memory import pss_bytes
from stack.mesh import PROJECT

PARLEY = PROJECT / ".venv" / "bin" / "parley"


@dataclass(frozen=True)
class RunningMesh:
    """A mesh that is ready, and the way to it."""

    data_dir: Path
    edge: str  # host:port, h2c
    triton: str  # host:port, mutual TLS
    token: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)

    def edge_channel(self) -> grpc.aio.Channel:
        # Channels to the same address share a connection unless told otherwise; clients of a mesh do not.
        return grpc.aio.insecure_channel(self.edge, options=[("grpc.use_local_subchannel_pool", 1)])

    def mesh_channel(self, address: str, service: str, caller: str) -> grpc.aio.Channel:
        """Past the edge, with the certificate of a service."""
        tls = self.data_dir / "tls"
        credentials = grpc.ssl_channel_credentials(
            (tls / "ca.pem").read_bytes(),
            (tls / f"{caller}-key.pem").read_bytes(),
            (tls / f"{caller}.pem").read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", service), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(address, credentials, options)

    def address(self, part: str) -> str:
        return str(json.loads((self.data_dir / "endpoints.json").read_text())["parts"][part][0])

    def processes(self, part: str) -> list[psutil.Process]:
        """The processes of a part, with their children."""
        parts: dict[str, Any] = json.loads((self.data_dir / "status.json").read_text())["parts"]
        roots = [psutil.Process(found["pid"]) for name, found in parts.items() if name.partition("-")[0] == part]
        return [process for root in roots for process in (root, *root.children(recursive=True))]

    def cpu_seconds(self, part: str) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes(part))


@contextlib.contextmanager
def running_mesh(
    *options: str, data_dir: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[RunningMesh]:
    """Start a mesh with `parley up --detach`, stop it at the end; its data goes too unless `data_dir` is given."""
    with contextlib.ExitStack() as kept:
        folder = data_dir or Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="parley-bench-")))
        here = f"--data-dir={folder}"
        unlimited = {"PARLEY_EDGE_REQUESTS_PER_S": "1000000", "PARLEY_EDGE_BURST": "1000000"}
        subprocess.run(
            [PARLEY, "up", "--detach", here, "--port=0", "--tls-port=0", *options],
            env={**os.environ, **unlimited, **(environment or {})},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            token = subprocess.run([PARLEY, "token", here], check=True, capture_output=True, text=True).stdout.strip()
            endpoints = json.loads((folder / "endpoints.json").read_text())
            edge = endpoints["edge"]["http"].removeprefix("http://")
            yield RunningMesh(folder, edge, endpoints["parts"]["triton"][0], token)
        finally:
            subprocess.run([PARLEY, "down", here], check=True, stdout=subprocess.DEVNULL)


def memory_bytes(mesh: RunningMesh) -> dict[str, int]:
    """Proportional set size of each part with its children, and of the supervisor alone."""
    status = json.loads((mesh.data_dir / "status.json").read_text())
    found = {name: pss_bytes(part["pid"]) for name, part in status["parts"].items()}
    supervisor = int((mesh.data_dir / "supervisor.lock").read_text())
    return {**found, "supervisor": pss_bytes(supervisor) - sum(found.values())}


def machine() -> str:
    """One line about where the figures come from."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory_gb = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {memory_gb:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f}, {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
