"""One local mesh: where its files lie, which ports its parts have, and the options it was started with.

Ports are picked below the kernel's range for outgoing connections: from inside it, a client of any program
could take the port of a part between its death and its restart.
"""

import contextlib
import json
import os
import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
SERVICES = ("auth", "session", "chat", "knowledge", "notification")
STORES = ("postgres", "valkey", "nats", "milvus", "s3")


class EdgePortTaken(Exception):
    """A port that the user chose for the edge is in use by another program."""

    def __init__(self, port: int, option: str) -> None:
        super().__init__(f"port {port} is in use by another program; choose another one with {option}")
        self.port, self.option = port, option


@dataclass(frozen=True, kw_only=True)
class Options:
    http_port: int = 8080
    """Plaintext edge; 0 picks a free one."""
    https_port: int = 8443
    replicas: Mapping[str, int] = field(default_factory=dict)
    """Processes per service; a service that is not named has one."""
    chat_models: tuple[str, ...] = ("chat",)
    """Triton models that chat offers, the default one first."""
    embedding_models: tuple[str, ...] = ("embedding",)
    """Triton models that indexes are made with, the first index by the first one."""
    rerank_model: Path | None = None
    """The folder of a Triton model that knowledge has order what it finds; None: none does."""


@dataclass(frozen=True, kw_only=True)
class Mesh:
    data_dir: Path
    options: Options
    ports: Mapping[str, int]
    """One per listener: "postgres", "nats", "chat-1", "chat-1-metrics", "edge-http", ..."""

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def directory(self, name: str) -> Path:
        """A part's own directory, made on first use, closed to other users."""
        path = self.data_dir / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def log_file(self, part: str) -> Path:
        return self.directory("logs") / f"{part}.log"

    def secret_file(self, name: str) -> Path:
        return self.data_dir / "secrets" / name

    def secret(self, name: str) -> str:
        return self.secret_file(name).read_text().strip()

    @property
    def ca_file(self) -> Path:
        return self.data_dir / "tls" / "ca.pem"

    def cert_file(self, name: str) -> Path:
        return self.data_dir / "tls" / f"{name}.pem"

    def key_file(self, name: str) -> Path:
        return self.data_dir / "tls" / f"{name}-key.pem"

    def replicas(self, service: str) -> tuple[str, ...]:
        """Part names of a service's processes: chat-1, chat-2."""
        return tuple(f"{service}-{number}" for number in range(1, self.options.replicas.get(service, 1) + 1))

    def endpoints(self) -> dict[str, Any]:
        """What clients and tests need to reach the mesh; the content of endpoints.json."""
        parts = {name: [self.address(name)] for name in (*STORES, "triton") if name in self.ports}
        parts |= {service: [self.address(name) for name in self.replicas(service)] for service in SERVICES}
        metrics = {s: [self.address(f"{name}-metrics") for name in self.replicas(s)] for s in SERVICES}
        metrics["triton"] = [self.address("triton-metrics")]
        return {
            "edge": {
                "http": f"http://{self.address('edge-http')}",
                "https": f"https://{self.address('edge-https')}",
            },
            "parts": parts,
            "metrics": metrics,
            "admin": {"envoy": self.address("envoy-admin")},
            "ports": dict(self.ports),
        }


def default_data_dir() -> Path:
    return Path(os.environ.get("PARLEY_DATA_DIR") or PROJECT / ".parley")


def check_edge_ports(options: Options) -> None:
    """Raises EdgePortTaken."""
    for port, option in ((options.http_port, "--port"), (options.https_port, "--tls-port")):
        if port and not is_free(port):
            raise EdgePortTaken(port, option)


def open_mesh(data_dir: Path, options: Options) -> Mesh:
    """Plan a mesh in this directory and write its endpoints.json. Ports of the last run are kept where still free.

    Raises EdgePortTaken before anything else happens.
    """
    check_edge_ports(options)
    data_dir.mkdir(parents=True, exist_ok=True)
    # PostgreSQL refuses root; the user that it runs as must get to its folder through this one, and may not
    # list it.
    data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
    ports = {"edge-http": options.http_port, "edge-https": options.https_port}
    ports = {name: port for name, port in ports.items() if port}
    ports |= pick_ports(
        [n for n in _listeners(options) if n not in ports], _previous_ports(data_dir), set(ports.values())
    )
    mesh = Mesh(data_dir=data_dir.resolve(), options=options, ports=ports)
    write_atomically(data_dir / "endpoints.json", json.dumps(mesh.endpoints(), indent=1) + "\n")
    return mesh


def _listeners(options: Options) -> list[str]:
    names = [*STORES, "triton", "triton-metrics", "edge-http", "edge-https", "envoy-admin"]
    for service in SERVICES:
        for number in range(1, options.replicas.get(service, 1) + 1):
            names += [f"{service}-{number}", f"{service}-{number}-metrics"]
    return names


def _previous_ports(data_dir: Path) -> Mapping[str, int]:
    with contextlib.suppress(OSError, TypeError, ValueError):
        return dict(read_object(data_dir / "endpoints.json").get("ports", {}))
    return {}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is no file, or a damaged one."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        if isinstance(found := json.loads(path.read_text()), dict):
            return found
    return {}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pick_ports(
    names: Iterable[str], previous: Mapping[str, int] | None = None, taken: set[int] | None = None
) -> dict[str, int]:
    """A distinct free port for each name, the previous one where that still is free."""
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (10_000, first_outgoing) if first_outgoing > 12_000 else (20_000, 65_536)
    taken, picked = set(taken or ()), {}
    for name in names:
        port = (previous or {}).get(name, 0)
        while not port or port in taken or not is_free(port):
            port = random.randrange(low, high)  # noqa: S311
        taken.add(port)
        picked[name] = port
    return picked


def write_atomically(path: Path, text: str, mode: int = 0o644, durable: bool = True) -> None:
    """Readers see the old content or the new, never a part. If durable, a power cut too leaves one of the two."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(draft, path)
