"""`parley logs`: the end of the parts' logs, and what comes after."""

import time
from collections.abc import Iterator
from pathlib import Path

POLL_INTERVAL_S = 0.25


class NoSuchPart(Exception):
    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"there is no log of '{name}'; there are: {', '.join(known) or 'none yet'}")


def select(data_dir: Path, part: str | None) -> list[Path]:
    """Log files of one part, of all replicas of a service, or of everything. Raises NoSuchPart."""
    files = sorted((data_dir / "logs").glob("*.log"))
    if part is None:
        return files
    chosen = [file for file in files if file.stem == part or file.stem.rpartition("-")[0] == part]
    if not chosen:
        raise NoSuchPart(part, [file.stem for file in files])
    return chosen


def tail(file: Path, lines: int) -> tuple[list[str], int]:
    """The last lines, and where the file ended."""
    with file.open("rb") as log:
        size = log.seek(0, 2)
        log.seek(max(0, size - 512 * max(lines, 1)))
        text = log.read().decode(errors="replace")
    return text.splitlines()[-lines:] if lines else [], size


def follow(ends: dict[Path, int]) -> Iterator[tuple[Path, str]]:
    """Each line written after these positions, for ever. A log that was cut is read from its start."""
    rests = dict.fromkeys(ends, b"")
    while True:
        quiet = True
        for file, position in ends.items():
            if (size := file.stat().st_size) < position:
                position = 0
            if size == position:
                continue
            quiet = False
            with file.open("rb") as log:
                log.seek(position)
                *lines, rests[file] = (rests[file] + log.read()).split(b"\n")
                ends[file] = log.tell()
            for line in lines:
                yield file, line.decode(errors="replace")
        if quiet:
            time.sleep(POLL_INTERVAL_S)
