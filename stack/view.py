"""How a mesh looks to a person: a live table on a terminal, one line per change elsewhere."""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Status = Mapping[str, Any]
MARKS = {
    "waiting": ("·", "dim"),
    "ready": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "not answering": ("!", "yellow"),
    "waiting to restart": ("!", "yellow"),
    "stopped": ("·", "dim"),
}


class View:
    """Shows each status it is given; cheap to call often."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._shown: dict[str, str] = {}
        self._spinner = Spinner("dots", style="cyan")

    @contextlib.contextmanager
    def open(self) -> Iterator["View"]:
        if not self._console.is_terminal:
            yield self
            return
        with Live(console=self._console, auto_refresh=False, transient=False) as self._live:
            yield self

    def show(self, status: Status) -> None:
        if self._live:
            self._live.update(Group(*self._rows(status)), refresh=True)
            return
        for name, part in status.get("parts", {}).items():
            if self._shown.get(name) != part["state"]:
                self._shown[name] = part["state"]
                took = f" ({part['ready_after_s']:.1f} s)" if part["state"] == "ready" else ""
                print(f"{name}: {part['state']}{took}", file=self._console.file, flush=True)

    def _rows(self, status: Status) -> Iterator[Table]:
        table = Table.grid(padding=(0, 2))
        for name, part in status.get("parts", {}).items():
            mark, style = MARKS.get(part["state"], (None, "cyan"))
            took = f"{part['ready_after_s']:.1f} s" if part["state"] == "ready" else ""
            again = f"{part['restarts']} restarts, last: {part['last_end']}" if part["restarts"] else ""
            shown = Text(mark, style) if mark else self._spinner
            table.add_row(shown, name, Text(part["state"], style), Text(took, "dim"), Text(again, "yellow"))
        yield table


def status_table(status: Status, now: datetime) -> Table:
    """Every part with its process, for `parley status`."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("part", "state", "pid", "restarts", "memory", "for", "address"):
        number = heading in ("pid", "restarts", "memory", "for")
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for name, part in status["parts"].items():
        _, style = MARKS.get(part["state"], ("", "cyan"))
        memory = f"{part['pss_bytes'] / 2**20:.0f} MB" if part.get("pss_bytes") else ""
        age = _age(now - datetime.fromisoformat(part["since"]))
        state = Text(part["state"], style)
        planned = part.get("planned_restarts", 0)  # absent in what an older supervisor wrote
        restarts = f"{part['restarts']}" + (f" + {planned} planned" if planned else "")
        table.add_row(name, state, str(part["pid"] or ""), restarts, memory, age, part.get("address", ""))
    return table


def _age(time: timedelta) -> str:
    seconds = max(0, int(time.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def print_failure(console: Console, failure: Mapping[str, str]) -> None:
    """Which part did not start, why, the end of its log, and what to do."""
    console.print(f"[bold red]{failure['part']} did not start:[/] ", end="")
    console.print(failure["reason"], markup=False, highlight=False, soft_wrap=True)
    if failure["log_tail"]:
        console.print("The end of its log:", style="dim")
        console.print(Text(failure["log_tail"], "dim"), soft_wrap=True)
    console.print("What to do: ", style="bold", end="")
    console.print(failure["advice"], markup=False, highlight=False, soft_wrap=True)
