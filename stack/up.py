"""`parley up` and `parley down`: one supervisor in this process, or in a detached one that this process watches."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from stack import authority, catalog, control, lock
from stack.mesh import PROJECT, Mesh, Options, check_edge_ports, open_mesh, read_object
from stack.part import StartFailed
from stack.process import SUPERVISOR_LOG, end_leftovers
from stack.supervisor import Supervisor
from stack.view import View, print_failure

REDRAW_INTERVAL_S = 0.1
LONGEST_STOP_S = 90


def run(data_dir: Path, options: Options, console: Console) -> int:
    """Start the mesh, stay until a signal ends it, stop it; the exit status.

    Raises AlreadyRunning and EdgePortTaken before anything starts.
    """
    os.umask(0o077)
    # asyncio warns each time a NATS connection over TLS closes; nothing follows from it.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with lock.hold(data_dir):
        check_edge_ports(options)
        end_leftovers(data_dir)
        mesh = open_mesh(data_dir, options)
        authority.ensure(mesh)
        supervisor = Supervisor(catalog.all_parts(mesh), mesh.data_dir)
        return asyncio.run(_serve(mesh, supervisor, console))


async def _serve(mesh: Mesh, supervisor: Supervisor, console: Console) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores SIGHUP so that the mesh outlives the terminal; that is respected.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    start = asyncio.create_task(supervisor.start())
    asked = asyncio.create_task(ended.wait())
    view = View(console)
    await _watched({start, asked}, supervisor, view)
    failed = False
    try:
        if start.done():
            await start
            print_welcome(mesh, console)
            watch = asyncio.create_task(supervisor.watch())
            async with control.listening(supervisor):
                await asyncio.wait({asked, watch}, return_when=asyncio.FIRST_COMPLETED)
            failed = watch.done()
            watch.cancel()
        start.cancel()
        await asyncio.wait({start})
    except StartFailed:
        print_failure(console, supervisor.status()["failure"])
        return 1
    console.print("Stopping ...", style="dim")
    stop = asyncio.create_task(supervisor.stop())
    await _watched({stop}, supervisor, view)
    await stop
    console.print(f"Stopped. Everything is kept in {mesh.data_dir}.", highlight=False)
    return 1 if failed else 0


async def _watched(tasks: set[asyncio.Task[Any]], supervisor: Supervisor, view: View) -> None:
    """Show progress until one of these tasks is done."""
    with view.open():
        while not any(task.done() for task in tasks):
            view.show(supervisor.status())
            await asyncio.wait(tasks, timeout=REDRAW_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
        view.show(supervisor.status())


def run_detached(data_dir: Path, options: Options, console: Console, arguments: list[str]) -> int:
    """Start the same in the background; returns when it is ready or has failed.

    Raises AlreadyRunning and EdgePortTaken before anything starts.
    """
    if pid := lock.holder(data_dir):
        raise lock.AlreadyRunning(data_dir, pid)
    check_edge_ports(options)
    logs = data_dir / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = logs / SUPERVISOR_LOG
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack.cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=PROJECT,
        )

    def ours() -> dict[str, Any]:
        status = read_status(data_dir)
        return status if status.get("pid") == process.pid else {}

    with View(console).open() as view:
        while process.poll() is None and ours().get("state", "starting") == "starting":
            view.show(ours())
            time.sleep(REDRAW_INTERVAL_S)
        view.show(ours())
    if ours().get("state") == "ready":
        console.print(log.read_text().partition("\n\n")[2].rstrip(), markup=False, highlight=False)
        return 0
    process.wait(LONGEST_STOP_S)
    if failure := ours().get("failure"):
        print_failure(console, failure)
    else:
        silent = f"It ended with status {process.returncode} and wrote nothing into {log}: is the disk full?"
        console.print(log.read_text() or silent, markup=False, highlight=False, soft_wrap=True)
    return 1


def stop(data_dir: Path, console: Console) -> int:
    """Stop the running mesh and wait until it is gone; the exit status."""
    pid = lock.holder(data_dir)
    if pid is None:
        killed = end_leftovers(data_dir)
        console.print(f"No mesh is running in {data_dir}." + (f" Ended {len(killed)} leftovers." if killed else ""))
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + LONGEST_STOP_S
    with View(console).open() as view:
        while lock.holder(data_dir) == pid:
            if time.monotonic() > deadline:
                console.print(f"The supervisor (pid {pid}) still runs after {LONGEST_STOP_S} s; see `parley status`.")
                return 1
            view.show(read_status(data_dir))
            time.sleep(REDRAW_INTERVAL_S)
        view.show(read_status(data_dir))
    console.print(f"Stopped. Everything is kept in {data_dir}.", highlight=False)
    return 0


def read_status(data_dir: Path) -> dict[str, Any]:
    """status.json as it is; empty when there is none, or a damaged one."""
    return read_object(data_dir / "status.json")


def print_welcome(mesh: Mesh, console: Console) -> None:
    edge = mesh.endpoints()["edge"]
    lines = (
        "",
        "Parley is ready.",
        f"  gRPC, grpc-web, REST   {edge['http']}   {edge['https']}",
        f"  Authority for TLS      {mesh.ca_file}",
        "  Sign in                parley login   (admin@localhost)",
        f"  Password               {mesh.data_dir / 'admin-password'}",
        f"  Logs                   {mesh.data_dir / 'logs'}",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
