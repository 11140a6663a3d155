"""How a process that reads a hostile file limits itself; it imports little, as each file pays for it."""

import resource
import signal

OUT_OF_MEMORY = 3
"""The status with which such a process says so."""


def limit(memory_bytes: int, cpu_s: int, wall_s: float, output_bytes: int) -> None:
    """Limit this process, before it reads the first byte."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, output_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    signal.setitimer(signal.ITIMER_REAL, wall_s)  # should the service die, this still ends
