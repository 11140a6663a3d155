"""How long is the second `parley up`, and how much memory does everything take when idle?

Goals: ready within 15 s; at most 2.0 GB (PSS).
"""

import tempfile
import time
from pathlib import Path

from bench.mesh import machine, memory_bytes, running_mesh

_SETTLE_S = 10  # readiness checks and caches of the start are over


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
        for ordinal in ("first", "second"):
            began_s = time.monotonic()
            with running_mesh(data_dir=Path(folder)) as mesh:
                print(f"{ordinal} `parley up` to ready and a first token: {time.monotonic() - began_s:.1f} s")
                if ordinal == "second":
                    time.sleep(_SETTLE_S)
                    parts = memory_bytes(mesh)
    print("goal for the second: 15 s")
    for name, size in sorted(parts.items(), key=lambda entry: -entry[1]):
        print(f"  {name:<16}{size / 2**20:7.0f} MB")
    print(f"idle memory of everything: {sum(parts.values()) / 1e9:.2f} GB PSS (goal 2.0 GB)")


if __name__ == "__main__":
    print(machine())
    main()
