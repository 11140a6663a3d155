"""How a command reaches the running supervisor: a socket in the data directory that only its owner can open.

One line of JSON asks, `{"restart": ["chat", "nats"]}`; lines of JSON answer, one per part: `{"part", "seconds"}`. A
last line with `failure` or `refusal` says why there are no more. Who hangs up is not served on: what is under way ends,
the rest is left alone.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from stack.part import StartFailed
from stack.supervisor import Supervisor

NAME = "supervisor.sock"


class Refused(Exception):
    """The supervisor does not do what it was asked; the message says why."""


@contextlib.asynccontextmanager
async def listening(supervisor: Supervisor) -> AsyncIterator[None]:
    """Serve commands while the body runs."""
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        serving.add(task)
        try:
            async for answer in _answers(supervisor, await reader.readline()):
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(serve, sock=_bound(supervisor.data_dir))
    try:
        yield
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        (supervisor.data_dir / NAME).unlink(missing_ok=True)


async def _answers(supervisor: Supervisor, line: bytes) -> AsyncIterator[dict[str, object]]:
    try:
        parts = [part for name in json.loads(line)["restart"] for part in supervisor.select(name)]
        async for part, seconds in supervisor.restart(parts):
            yield {"part": part, "seconds": seconds}
    except KeyError as unknown:
        yield {"refusal": f"there is no part or service {unknown}; `parley status` names them"}
    except StartFailed as failed:
        yield {"failure": failed.told()}


def restart(data_dir: Path, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Have parts or services restarted, one part after the other; each part with the seconds it was away.

    Raises Refused, and StartFailed for a part that did not come back.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with _short(data_dir) as folder:
                connection.connect(f"{folder}/{NAME}")
        except OSError as error:
            raise Refused(f"no mesh is ready in {data_dir}") from error
        connection.sendall(json.dumps({"restart": list(names)}).encode() + b"\n")
        for line in connection.makefile():
            answer = json.loads(line)
            if "refusal" in answer:
                raise Refused(answer["refusal"])
            if "failure" in answer:
                raise StartFailed(**answer["failure"])
            yield answer["part"], answer["seconds"]


def _bound(data_dir: Path) -> socket.socket:
    (data_dir / NAME).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    with _short(data_dir) as folder:
        umask = os.umask(0o177)
        try:
            listener.bind(f"{folder}/{NAME}")
        finally:
            os.umask(umask)
    return listener


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Another path of the folder: that of a socket may have no more than 107 characters."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
