"""Where does chat's processor time go while 200 turns stream? Samples of py-spy, by whose code was running.

A sample belongs to the innermost frame that has an owner: a file of ours, or a library. What runs in C below a library
counts as the library's. `python -m bench.profile` prints the table of docs/profile.md.
"""

import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench import many_streams
from bench.mesh import PARLEY, RunningMesh, machine, running_mesh

_AFTER_S, _SECONDS, _RATE = 6, 7, 200  # once all turns have begun
_IDLE = ("poll (", "epoll_wait", "epoll_pwait", "select_poll")
_OWNERS = (
    (re.compile(r"cygrpc|grpc/"), "gRPC"),
    (re.compile(r"redis|hiredis|asyncio/streams"), "redis-py: the log's connection"),
    (re.compile(r"asyncpg"), "asyncpg"),
    (re.compile(r"nats/"), "nats-py"),
    (re.compile(r"opentelemetry|prometheus|logging/"), "telemetry and logs"),
    (re.compile(r"(?P<file>services/[\w/]+\.py)"), ""),
    (re.compile(r"uvloop|loop\.c|\(core\.c|\(linux\.c|_asynciomodule|asyncio/"), "event loop"),
)


def owner_of(frames: Iterable[str]) -> str:
    """Of a sample, its frames from the innermost on."""
    for frame in frames:
        for pattern, name in _OWNERS:
            if match := pattern.search(frame):
                return name or match["file"]
    return "Python itself"


def table(samples: Iterable[str]) -> Counter[str]:
    """Samples by owner, from py-spy's raw lines `outermost;...;innermost count`; the other threads are gRPC's."""
    found: Counter[str] = Counter()
    for sample in samples:
        stack, _, count = sample.rpartition(" ")
        frames = stack.split(";")[::-1]
        if any(idle in frame for frame in frames[:3] for idle in _IDLE):
            continue
        found["gRPC's own threads" if "Thread.run" in stack else owner_of(frames)] += int(count)
    return found


def _record(mesh: RunningMesh, raw: Path) -> None:
    time.sleep(_AFTER_S)
    chat = mesh.processes("chat")[0].pid
    command = [str(PARLEY.with_name("py-spy")), "record", "--native", "--pid", str(chat), "--format", "raw"]
    subprocess.run(
        [*command, "--rate", str(_RATE), "--duration", str(_SECONDS), "--output", str(raw)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_mesh("--chat-models=echo") as mesh:
        raw = Path(folder) / "chat.raw"
        recording = threading.Thread(target=_record, args=(mesh, raw))
        recording.start()
        many_streams.line(mesh, many_streams.SUDDEN, direct=False)
        recording.join()
        found = table(raw.read_text().splitlines())
    total = sum(found.values())
    for owner, count in found.most_common():
        if count / total >= 0.005:
            print(f"| {owner} | {count / total:.1%} |")


if __name__ == "__main__":
    print(machine())
    main()
