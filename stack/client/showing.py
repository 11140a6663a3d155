"""What a person sees while files are ingested: bars on a terminal, elsewhere a line for each file that is done."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from parley_sdk.parley.knowledge.v1 import Document, DocumentState
from stack.client.edge import console
from stack.client.listing import visible

_NAME_COLUMNS = 28  # of the 80 that a terminal has at least
_LINES_LEFT = 4
_LAST_DONE = 3
"""How many of the files that are done are still shown when there is no room for all."""


class Screen(Protocol):
    """Files by number, from the first byte to the end."""

    def begin(self, number: int, name: str, size_bytes: int) -> None: ...

    def sent(self, number: int, sent_bytes: int) -> None: ...

    def stands(self, number: int, document: Document) -> None:
        """The document as the mesh now has it."""

    def end(self, number: int, outcome: str) -> None: ...


@contextmanager
def showing(files: int) -> Iterator[Screen]:
    """For so many files; bars move while entered."""
    if not console.is_terminal:
        yield _Lines()
        return
    bars = _Bars(files, has_room=files <= console.height - _LINES_LEFT)
    with Live(bars.view, console=console, refresh_per_second=10):
        yield bars


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class _Lines:
    """Implements Screen."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def begin(self, number: int, name: str, size_bytes: int) -> None:
        self._names[number] = name

    def sent(self, number: int, sent_bytes: int) -> None:
        pass

    def stands(self, number: int, document: Document) -> None:
        pass

    def end(self, number: int, outcome: str) -> None:
        line = f"{visible(self._names.pop(number))}: {outcome}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Bars:
    """Implements Screen: a bar for each file that moves, for the last ones that are done, and for the whole."""

    def __init__(self, files: int, *, has_room: bool) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[step]}", markup=False),
            console=console,
        )
        whole = Progress(TextColumn("  {task.completed:.0f} of {task.total:.0f} files"), BarColumn(), console=console)
        self._whole, self._whole_bar = whole, whole.add_task("", total=files)
        self._has_room = has_room
        self._files: dict[int, TaskID] = {}
        self._done: deque[TaskID] = deque()
        self.view = Group(self._bars, whole) if files > 1 else Group(self._bars)

    def begin(self, number: int, name: str, size_bytes: int) -> None:
        shown = _shortened(visible(name.rpartition("/")[2]))
        self._files[number] = self._bars.add_task("", name=shown, step="uploading", total=max(size_bytes, 1))

    def sent(self, number: int, sent_bytes: int) -> None:
        self._bars.update(self._files[number], completed=sent_bytes)

    def stands(self, number: int, document: Document) -> None:
        progress = document.progress
        done, passages = (progress.passages_indexed, progress.passages) if progress else (0, 0)
        waits = document.state is DocumentState.QUEUED
        step = "waiting" if waits else f"indexing, {done} of {passages} passages" if passages else "reading"
        self._bars.update(
            self._files[number],
            total=passages or None,
            completed=done,
            step=step,
            visible=self._has_room or not waits,
        )

    def end(self, number: int, outcome: str) -> None:
        bar = self._files.pop(number)
        self._bars.update(bar, total=1, completed=1, step=outcome, visible=True)
        self._whole.advance(self._whole_bar)
        self._done.append(bar)
        if not self._has_room and len(self._done) > _LAST_DONE:
            self._bars.remove_task(self._done.popleft())


def _shortened(name: str) -> str:
    """A name that leaves room for the rest of its line; its end says what it is."""
    return name if len(name) <= _NAME_COLUMNS else f"{name[: _NAME_COLUMNS - 10]}…{name[-9:]}"
