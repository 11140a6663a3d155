"""The way from the command line to an edge: its address, a channel, and refusals in a person's words."""

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import typer
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError
from rich.console import Console

from stack.mesh import default_data_dir, read_object

CALL_TIMEOUT_S = 15.0
INTERRUPTED = 130
"""The exit status after Ctrl-C."""
console = Console()
errors = Console(stderr=True)


@dataclass(frozen=True)
class Edge:
    """Where a mesh answers, and what this user keeps about it."""

    url: str
    session_file: Path
    """The tokens of `parley login`, mode 600."""
    admin_password_file: Path | None = None
    """Of a mesh on this machine: who can read it is its administrator."""
    ca_file: Path | None = None


def find_edge(data_dir: Path | None, url: str | None) -> Edge:
    """The edge at `url`, or that of the local mesh in `data_dir`. Ends the command when there is none."""
    if url:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        return Edge(url, state / "parley" / f"{name}.json")
    where = (data_dir or default_data_dir()).expanduser().resolve()
    file = where / "endpoints.json"
    try:
        url = read_object(file)["edge"]["http"]
    except (KeyError, TypeError):
        if file.exists():
            end(f"{file} is damaged: `parley down` and `parley up` write it anew, or name a mesh with --edge.")
        end(f"No mesh in {where}: start one with `make up`, or name one with --edge.")
    except PermissionError:
        end(f"The mesh in {where} belongs to another user.")
    return Edge(url, where / "client-session.json", where / "admin-password", where / "tls" / "ca.pem")


@contextlib.asynccontextmanager
async def connected(edge: Edge) -> AsyncIterator[Channel]:
    """A channel to the edge. Nothing is sent before the first call."""
    parts = urlsplit(edge.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        end(f"{edge.url} is not an address such as http://127.0.0.1:8080.")
    tls: ssl.SSLContext | bool = parts.scheme == "https"
    if tls:
        tls = ssl.create_default_context()
        tls.set_alpn_protocols(["h2"])
        if edge.ca_file and edge.ca_file.exists():
            tls.load_verify_locations(edge.ca_file)
    channel = Channel(parts.hostname, parts.port or (443 if tls else 80), ssl=tls or None)
    try:
        yield channel
    finally:
        channel.close()


def reason_of(error: GRPCError) -> str:
    """The machine-readable reason of a refusal; "" when it carries none."""
    return next((detail.reason for detail in error.details or () if isinstance(detail, ErrorInfo)), "")


def fact_of(error: GRPCError, name: str) -> str:
    """A fact of a refusal; "" when it carries none of this name."""
    infos = (detail for detail in error.details or () if isinstance(detail, ErrorInfo))
    return next((info.metadata[name] for info in infos if name in info.metadata), "")


@contextlib.contextmanager
def refusals_explained() -> Iterator[None]:
    """End the command with one line for a person when the mesh refuses or is not there."""
    try:
        yield
    except GRPCError as error:
        reason = reason_of(error) or error.status.name
        end(f"{error.message or 'The mesh refused.'} ({reason})")
    except TimeoutError:  # an OSError too
        end("The mesh did not answer in time. `parley status` shows whether every part is ready.")
    except OSError as error:
        end(f"No mesh answers: {error}. `parley status` shows whether it runs; `make up` starts it.")
    except StreamTerminatedError:
        end("The connection to the mesh broke. Try again; `parley status` shows whether it runs.")
    # Ctrl-C comes as the second one after a connection broke: grpclib cancelled the task that waited on it, for asyncio
    # to count.
    except (KeyboardInterrupt, asyncio.CancelledError):
        end("Stopped.", status=INTERRUPTED)


def end(message: str, status: int = 1) -> NoReturn:
    """End the command with one line for a person."""
    errors.print(message, style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(status)
