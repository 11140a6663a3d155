"""The files that `parley ingest` is pointed at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_FILES = 10_000


class TooMany(Exception):
    """More files than one command takes."""


@dataclass
class Found:
    """Files, each once, and what can't be looked into with the reason."""

    files: list[Path] = field(default_factory=list)
    failures: dict[Path, str] = field(default_factory=dict)


def find(places: Sequence[Path], most: int = MAX_FILES) -> Found:
    """What is named, as it is, and everything in folders, by name. Raises TooMany.

    Of a folder, what is hidden is left out; links are followed, but into no folder twice.
    """
    found, entered = Found(), set[tuple[int, int]]()
    known: set[Path] = set()
    for place in places:
        if place.is_dir():
            paths = _walked(place, entered, found.failures)
        elif place.is_file():
            paths = iter((place,))
        else:
            found.failures[place] = "There is no such file or folder." if not place.exists() else "It is no file."
            continue
        for path in paths:
            if path not in known:
                known.add(path)
                found.files.append(path)
            if len(found.files) > most:
                raise TooMany
    return found


def _walked(folder: Path, entered: set[tuple[int, int]], failures: dict[Path, str]) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            entries = sorted(entry for entry in here.iterdir() if not entry.name.startswith("."))
            files = [entry for entry in entries if entry.is_file()]
            waiting += [entry for entry in reversed(entries) if entry.is_dir()]
        except OSError as error:
            failures[here] = f"It can't be read: {error.strerror}."
            continue
        yield from files
