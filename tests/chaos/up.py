"""`python -m tests.chaos.up DATA_DIR`: the mesh under test, started by the product's own supervisor, with three things
set otherwise: chat reaches its stores and peers through links that can be cut, some services die at named points when
told, and a part that is killed every few seconds by design is not taken for one that keeps dying.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from stack import services, supervisor, up
from stack.mesh import Mesh, Options
from stack.part import Part
from tests.chaos import failpoints

LINKS = "CHAOS_LINKS"
"""Ports of the links by listener, JSON."""
REPLICAS = "CHAOS_REPLICAS"
MODELS = "CHAOS_MODELS"


_parts_as_they_are = services.parts


def _with_failpoints(mesh: Mesh) -> list[Part]:
    found = []
    for part in _parts_as_they_are(mesh):
        service = part.name.rpartition("-")[0]
        if service in failpoints.POINTS:
            assert part.command == (sys.executable, "-m", f"services.{service}"), part.command
            command = (sys.executable, "-m", failpoints.__name__, service)
            order = failpoints.order_file(mesh.data_dir, part.name)
            part = replace(part, command=command, env={**part.env, failpoints.ORDER: str(order)})
        found.append(part)
    return found


def main() -> int:
    supervisor.STEADY_AFTER_S = 0.0
    links: dict[str, int] = json.loads(os.environ[LINKS])
    as_it_is = services.environment

    def through_links(mesh: Mesh, service: str, name: str) -> Mapping[str, str]:
        values = as_it_is(mesh, service, name)
        if service != "chat":
            return values
        for listener, port in links.items():
            if listener not in mesh.ports:
                continue
            direct, link = mesh.address(listener), f"127.0.0.1:{port}"
            values = {
                key: value if key.endswith("LISTEN_ADDRESS") else value.replace(direct, link)
                for key, value in values.items()
            }
        return values

    services.environment = through_links
    services.parts = _with_failpoints
    replicas = json.loads(os.environ[REPLICAS])
    models = tuple(os.environ[MODELS].split(","))
    options = Options(http_port=0, https_port=0, replicas=replicas, chat_models=models)
    return up.run(Path(sys.argv[1]).resolve(), options, Console())


if __name__ == "__main__":
    raise SystemExit(main())
