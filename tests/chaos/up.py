"""`python -m tests.chaos.up DATA_DIR`: the mesh under test, started by the product's own supervisor, with two things
set otherwise: chat reaches its stores and peers through links that can be cut, and a part that is killed every few
seconds by design is not taken for one that keeps dying.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from stack import services, supervisor, up
from stack.mesh import Mesh, Options

LINKS = "CHAOS_LINKS"
"""Ports of the links by listener, JSON."""
REPLICAS = "CHAOS_REPLICAS"
MODELS = "CHAOS_MODELS"


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
    replicas = json.loads(os.environ[REPLICAS])
    models = tuple(os.environ[MODELS].split(","))
    options = Options(http_port=0, https_port=0, replicas=replicas, chat_models=models)
    return up.run(Path(sys.argv[1]).resolve(), options, Console())


if __name__ == "__main__":
    raise SystemExit(main())
