"""How much later does the first token come through edge and mesh than from Triton itself?

Alternates one turn through the edge (JWT check, PostgreSQL, session, turn log) with one call straight to Triton,
on a warm mesh, one at a time. Goal: at most 30 ms added (p50).
"""

import asyncio
import time
from collections.abc import AsyncIterator

from bench import triton, turns
from bench.mesh import RunningMesh, machine, percentile, running_mesh

_WARM_UP, _ROUNDS = 20, 200
_TOKENS, _TOKENS_PER_S = 3, 200


async def _first_ms(deltas: AsyncIterator[str]) -> float:
    began_s = time.perf_counter()
    first_ms = 0.0
    async for _ in deltas:
        first_ms = first_ms or (time.perf_counter() - began_s) * 1000
    return first_ms


async def measure(mesh: RunningMesh) -> None:
    text = triton.question(_TOKENS, _TOKENS_PER_S)
    async with mesh.edge_channel() as edge, triton.channel(mesh) as direct:
        through: list[float] = []
        straight: list[float] = []
        for _ in range(_WARM_UP + _ROUNDS):
            conversation_id = await turns.conversation(edge, mesh.metadata)
            through.append(await _first_ms(turns.stream(edge, mesh.metadata, conversation_id, text, _TOKENS)))
            straight.append(await _first_ms(triton.stream(direct, text, _TOKENS)))
    through, straight = through[_WARM_UP:], straight[_WARM_UP:]
    print(f"time to first token, {_ROUNDS} turns one at a time, echo model")
    for name, values in (("through the edge", through), ("direct to Triton", straight)):
        print(f"  {name}: p50 {percentile(values, 0.5):6.1f} ms   p99 {percentile(values, 0.99):6.1f} ms")
    print(f"  added: {percentile(through, 0.5) - percentile(straight, 0.5):.1f} ms p50 (goal 30 ms)")


def main() -> None:
    with running_mesh("--chat-models=echo") as mesh:
        asyncio.run(measure(mesh))


if __name__ == "__main__":
    print(machine())
    main()
