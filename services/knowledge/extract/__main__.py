"""Reads one file in a process from nothing: `python -m services.knowledge.extract MEMORY_BYTES CPU_S WALL_S < FILE`."""

import os
import sys

from services.knowledge.extract.reader import OUT_OF_MEMORY, run

if __name__ == "__main__":
    try:
        run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # at once: tidying up takes memory, too
