"""Every part of the mesh, and how to run only some of them.

with started(tmp_path, "postgres") as mesh:
    ... postgres.dsn(mesh, "session"), mesh.secret_file("postgres-session") ...
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from stack import authority, milvus, nats, postgres, s3, valkey
from stack.mesh import Mesh, Options, open_mesh
from stack.part import Part
from stack.supervisor import Supervisor

STORES: dict[str, Callable[[Mesh], Part]] = {
    "postgres": postgres.part,
    "valkey": valkey.part,
    "nats": nats.part,
    "milvus": milvus.part,
    "s3": s3.part,
}


def all_parts(mesh: Mesh) -> list[Part]:
    # Here, because tests of one store must not wait for the imports of the rest.
    from stack import envoy, services, triton

    return [
        *(part(mesh) for part in STORES.values()),
        triton.part(mesh),
        *services.parts(mesh),
        envoy.part(mesh),
    ]


@contextlib.asynccontextmanager
async def running(data_dir: Path, *stores: str | Callable[[Mesh], Part]) -> AsyncIterator[Mesh]:
    """Some stores alone, by name or by a function that makes the part; stopped at the end, their data kept.

    Raises StartFailed.
    """
    mesh = open_mesh(data_dir, Options(http_port=0, https_port=0))
    authority.ensure(mesh)
    parts = [(STORES[store] if isinstance(store, str) else store)(mesh) for store in stores]
    supervisor = Supervisor(parts, mesh.data_dir)
    await supervisor.start()
    try:
        yield mesh
    finally:
        await supervisor.stop()


@contextlib.contextmanager
def started(data_dir: Path, *stores: str | Callable[[Mesh], Part]) -> Iterator[Mesh]:
    """`running` for code outside an event loop, such as a fixture for a whole test session. Does not restart parts."""
    with asyncio.Runner() as runner:
        context = running(data_dir, *stores)
        mesh = runner.run(context.__aenter__())
        try:
            yield mesh
        finally:
            runner.run(context.__aexit__(None, None, None))
