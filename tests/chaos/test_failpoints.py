"""Failpoints stand where the product's methods are, kill the process that passes one, once, and complain when they
stand nowhere.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stack.mesh import PROJECT
from tests.chaos.failpoints import ORDER, POINTS, Order, Point, install

PASSING = """
import asyncio, os
from pathlib import Path
from tests.chaos.failpoints import ORDER, Order, Point, install
from tests.chaos import links

install({"before": Point("tests.chaos.links:Link.open", before=True), "after": Point("tests.chaos.links:Link.open")},
        Order(Path(os.environ[ORDER])))

async def main():
    link = links.Link("edge", lambda: 1)
    await link.open()
    await link.close()

asyncio.run(main())
"""


def passing(order_file: Path) -> int:
    """The exit status of a process that passes the points `before` and `after`."""
    command = (sys.executable, "-c", PASSING)
    return subprocess.run(command, env={**os.environ, ORDER: str(order_file)}, cwd=PROJECT, check=False).returncode


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_process_dies_at_its_point_once(tmp_path: Path, point: str) -> None:
    order = Order(tmp_path / "chat-1")
    assert passing(tmp_path / "chat-1") == 0
    assert order.passed_s() is None
    order.give(point)
    assert passing(tmp_path / "chat-1") == -signal.SIGKILL
    assert order.passed_s()
    assert passing(tmp_path / "chat-1") == 0
    order.give(point)
    order.take_back()
    assert passing(tmp_path / "chat-1") == 0


@pytest.mark.parametrize("service", POINTS)
def test_every_point_stands_at_a_method_of_its_service(tmp_path: Path, service: str) -> None:
    """In a process of its own: what is installed stays."""
    program = (
        "from pathlib import Path; from tests.chaos.failpoints import POINTS, Order, install; "
        f"install(POINTS[{service!r}], Order(Path({str(tmp_path / 'order')!r})))"
    )
    subprocess.run((sys.executable, "-c", program), cwd=PROJECT, check=True)


@pytest.mark.parametrize(
    "method", ["tests.chaos.links:Link.gone", "tests.chaos.links:Gone.open", "tests.chaos.links:Link.cut"]
)
def test_a_point_that_stands_nowhere_is_told(tmp_path: Path, method: str) -> None:
    with pytest.raises(LookupError, match="the failpoint nowhere"):
        install({"nowhere": Point(method)}, Order(tmp_path / "order"))
