"""`parley doctor`: whether this machine and this folder can run the mesh, and what to do where they cannot."""

import os
import platform
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from stack import lock, programs
from stack.mesh import is_free
from stack.process import leftovers
from stack.triton import ENVIRONMENT

NEEDED_DISK_BYTES = 2 * 2**30
NEEDED_MEMORY_BYTES = 2 * 2**30
NEEDED_FILES = 1024


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    advice: str = ""


def examine(data_dir: Path, edge_ports: tuple[int, int], console: Console) -> int:
    """Print every finding; 1 when something stands in the way."""
    findings = [finding for check in CHECKS for finding in check(data_dir, edge_ports)]
    for finding in findings:
        console.print("[green]✓[/]" if finding.ok else "[red]✗[/]", end=" ")
        console.print(finding.what, markup=False, highlight=False, soft_wrap=True)
        if not finding.ok:
            console.print(f"  {finding.advice}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    return 0 if all(finding.ok for finding in findings) else 1


def _machine(data_dir: Path, edge_ports: tuple[int, int]) -> Iterator[Finding]:
    system = f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}"
    yield Finding(
        system, platform.system() == "Linux", "The local mesh runs on Linux; elsewhere use a virtual machine."
    )
    version = platform.python_version()
    yield Finding(
        f"Python {version}", sys.version_info >= (3, 11), "Install Python 3.11 or newer and run `make up` again."
    )
    memory = psutil.virtual_memory().available
    enough = memory >= NEEDED_MEMORY_BYTES
    yield Finding(f"{memory / 2**30:.1f} GiB of memory available", enough, "The mesh needs 2 GiB: end other programs.")
    files = psutil.Process().rlimit(psutil.RLIMIT_NOFILE)[0]
    yield Finding(f"{files} open files allowed", files >= NEEDED_FILES, f"Run `ulimit -n {NEEDED_FILES}` first.")


def _programs(data_dir: Path, edge_ports: tuple[int, int]) -> Iterator[Finding]:
    located: dict[str, Callable[[], str]] = {
        "PostgreSQL": lambda: str(programs.postgres() / "postgres"),
        "Valkey": programs.valkey,
        "NATS": lambda: programs.script("nats-server"),
        "Milvus": lambda: programs.script("milvus-lite"),
        "S3 (rclone)": lambda: programs.script("rclone"),
        "Envoy": programs.envoy,
    }
    for name, locate in located.items():
        try:
            found = os.access(locate(), os.X_OK)
        except (ModuleNotFoundError, StopIteration):
            found = False
        yield Finding(f"program of {name}", found, "Run `make up`: it installs everything from the lock file.")
    setpriv = (
        subprocess.run(["setpriv", "--pdeathsig", "KILL", "true"], capture_output=True)
        if shutil.which("setpriv")
        else None
    )
    works = setpriv is not None and setpriv.returncode == 0
    yield Finding("setpriv of util-linux", works, "Install util-linux (Debian: apt install util-linux).")


def _model_server(data_dir: Path, edge_ports: tuple[int, int]) -> Iterator[Finding]:
    python = ENVIRONMENT / "bin" / "python"
    there = python.exists()
    yield Finding(f"environment of the model server: {ENVIRONMENT}", there, "Run `make up`: it makes it.")
    if there:
        found = subprocess.run([python, "-m", "find_libpython"], capture_output=True, text=True).stdout.strip()
        version = ".".join(platform.python_version_tuple()[:2])
        yield Finding(
            f"shared libpython: {found or 'none'}",
            bool(found),
            f"Triton loads it. Debian and Ubuntu: apt install libpython{version}; pyenv: install Python with "
            "PYTHON_CONFIGURE_OPTS=--enable-shared.",
        )


def _folder(data_dir: Path, edge_ports: tuple[int, int]) -> Iterator[Finding]:
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    owner = existing.stat().st_uid
    usable = os.access(existing, os.W_OK | os.X_OK) and (existing != data_dir or owner == os.geteuid())
    yield Finding(
        f"folder {data_dir} can be written",
        usable,
        f"It belongs to uid {owner}: run as that user, or choose another folder with --data-dir.",
    )
    free = shutil.disk_usage(existing).free
    enough = free >= NEEDED_DISK_BYTES
    yield Finding(
        f"{free / 2**30:.1f} GiB free on its disk", enough, "Free some space; 2 GiB are needed to work safely."
    )


def _user(data_dir: Path, edge_ports: tuple[int, int]) -> Iterator[Finding]:
    users = {user.pw_uid: user.pw_name for user in pwd.getpwall()}
    uid = os.geteuid()
    yield Finding(
        f"user {users.get(uid, uid)} has a name", uid in users, "PostgreSQL wants one: add it to /etc/passwd."
    )
    if uid == 0:
        known = "nobody" in users.values()
        yield Finding("user 'nobody', as which root runs PostgreSQL", known, "Run Parley as an ordinary user.")


def _running(data_dir: Path, edge_ports: tuple[int, int]) -> Iterator[Finding]:
    if pid := lock.holder(data_dir):
        yield Finding(f"a mesh is running here (pid {pid}); ports and leftovers are not checked", True)
        return
    for port, option in zip(edge_ports, ("--port", "--tls-port"), strict=True):
        free = port == 0 or is_free(port)
        yield Finding(
            f"port {port} of the edge is free", free, f"Another program has it: choose another one with {option}."
        )
    pids = [process.pid for process in leftovers(data_dir)]
    yield Finding(
        "no processes left over from a killed mesh",
        not pids,
        f"Still running: {', '.join(map(str, pids))}. `parley down` ends them, and so does the next `parley up`.",
    )


CHECKS = (_machine, _programs, _model_server, _user, _folder, _running)
