"""Milvus, the one-machine server: the vectors. An index only; it can be built again from PostgreSQL and S3.

It has neither TLS nor passwords, so it must never listen beyond loopback.
"""

import functools

import grpc

from stack import programs
from stack.mesh import Mesh
from stack.part import Part

CHECK_HEALTH = "/milvus.proto.milvus.MilvusService/CheckHealth"


def part(mesh: Mesh) -> Part:
    return Part(
        name="milvus",
        command=(
            programs.script("milvus-lite"),
            "server",
            f"--data-dir={mesh.directory('milvus')}",
            "--host=127.0.0.1",
            f"--port={mesh.ports['milvus']}",
        ),
        env={
            "MALLOC_ARENA_MAX": "2",
            # A product of one vector with 10,000 takes a millisecond; threads that wait for each other make it twenty.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            # What is not in a segment yet is indexed anew by each search: some 50 passages, instead of 20,000.
            "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(128 * 1024),
        },
        ready=functools.partial(_answer, mesh),
        stop_timeout_s=20,
        advice="Read the log lines above. When the index is damaged, stop the mesh and move the folder milvus/ away: "
        "the index is built again from the record.",
    )


async def _answer(mesh: Mesh) -> None:
    # An empty message, and bytes as they come: the client package would cost the supervisor 100 MB.
    async with grpc.aio.insecure_channel(mesh.address("milvus")) as channel:
        await channel.unary_unary(CHECK_HEALTH)(b"", timeout=3)
