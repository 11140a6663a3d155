"""NATS JetStream: the events. Who a client is comes from its certificate alone; what it may do is listed
here.

A service publishes only its own events and reads only its own consumer; it cannot make or change streams.
Its replies come to an inbox under its own name, so that no service can listen to the replies of another:
clients connect with `inbox_prefix="_INBOX.<service>"`.
"""

import functools
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from services.shared.events.streams import DURABLES, STREAM
from stack import programs
from stack.mesh import PROJECT, SERVICES, Mesh, write_atomically
from stack.part import Part, run_to_end

OPERATOR = "operator"


def part(mesh: Mesh) -> Part:
    return Part(
        name="nats",
        command=(programs.script("nats-server"), "-c", str(mesh.directory("nats") / "nats.conf")),
        env={"GOMEMLIMIT": "96MiB"},
        prepare=functools.partial(_prepare, mesh),
        ready=functools.partial(_answer, mesh),
        after_ready=functools.partial(_declare_streams, mesh),
        advice="Read the log lines above. When the store is damaged, stop the mesh and move the folder nats/ away: "
        "events that were not published yet come from the outbox of each service.",
    )


async def connect(mesh: Mesh, holder: str = OPERATOR, **options: Any) -> Client:
    """A client that shows this holder's certificate. Raises OSError or nats.errors.Error."""
    context = ssl.create_default_context(cafile=mesh.ca_file)
    context.load_cert_chain(mesh.cert_file(holder), mesh.key_file(holder))
    return await nats.connect(
        f"tls://{mesh.address('nats')}",
        tls=context,
        tls_hostname="nats",
        inbox_prefix=f"_INBOX.{holder}",
        allow_reconnect=False,
        connect_timeout=3,
        **options,
    )


def permissions(service: str) -> dict[str, dict[str, list[str]]]:
    publish = [f"parley.events.{service}.>", f"$JS.API.STREAM.INFO.{STREAM}"]
    for durable in DURABLES:
        if durable.service == service:
            publish += [
                f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{durable.name}",
                f"$JS.API.CONSUMER.INFO.{STREAM}.{durable.name}",
                f"$JS.ACK.{STREAM}.{durable.name}.>",
                f"$JS.ACK.*.*.{STREAM}.{durable.name}.>",
            ]
    return {"publish": {"allow": publish}, "subscribe": {"allow": [f"_INBOX.{service}.>"]}}


async def _prepare(mesh: Mesh) -> None:
    directory = mesh.directory("nats")
    users: list[dict[str, Any]] = [{"user": name, "permissions": permissions(name)} for name in SERVICES]
    users.append({"user": OPERATOR, "permissions": {"publish": ">", "subscribe": ">"}})
    settings = {
        "server_name": "parley",
        "host": "127.0.0.1",
        "port": mesh.ports["nats"],
        "max_payload": 1024 * 1024,
        "tls": {
            "cert_file": str(mesh.cert_file("nats")),
            "key_file": str(mesh.key_file("nats")),
            "ca_file": str(mesh.ca_file),
            "verify_and_map": True,
            "min_version": "1.3",
            "timeout": 5,
        },
        "jetstream": {
            "store_dir": str(directory),
            "max_memory_store": 16 * 1024 * 1024,
            "max_file_store": 4 * 1024 * 1024 * 1024,
            # Otherwise an event is acknowledged up to two minutes before it is on disk.
            "sync_interval": "always",
        },
        "authorization": {"users": users},
    }
    # The server's configuration language includes JSON.
    write_atomically(directory / "nats.conf", json.dumps(settings, indent=1) + "\n", mode=0o600)


async def _answer(mesh: Mesh) -> None:
    client = await connect(mesh, error_cb=_expect)
    try:
        await client.jetstream().account_info()
    finally:
        await client.close()


async def _expect(error: Exception) -> None:
    """While it starts, errors are the answer; without this the client prints them."""


async def _declare_streams(mesh: Mesh) -> None:
    env = {
        "PATH": str(Path(sys.executable).parent),
        "PYTHONPATH": str(PROJECT),
        "PARLEY_NATS_URL": f"tls://{mesh.address('nats')}",
        "PARLEY_TLS_CA_FILE": str(mesh.ca_file),
        "PARLEY_TLS_CERT_FILE": str(mesh.cert_file(OPERATOR)),
        "PARLEY_TLS_KEY_FILE": str(mesh.key_file(OPERATOR)),
    }
    await run_to_end(sys.executable, "-m", "services.shared.events.declare", env=env)
