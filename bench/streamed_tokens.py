"""How much processor time does a streamed token cost in edge, chat and Valkey?

50 streams at once, 50 tokens/s each, for 10 s; beside it the same load straight on Triton, whose own cost is
printed for both. The client is a process of its own, so that its work is not in the figures.
"""

import asyncio
import multiprocessing
import time

from bench import triton, turns
from bench.mesh import RunningMesh, machine, percentile, running_mesh

_STREAMS, _TOKENS_PER_S, _SECONDS = 50, 50, 10
_TOKENS = _TOKENS_PER_S * _SECONDS
_PARTS = ("envoy", "chat", "valkey", "session", "postgres", "triton")


async def _stream_all(mesh: RunningMesh, direct: bool) -> tuple[int, list[float]]:
    """Tokens and gaps between deltas (ms) that a client sees."""
    text = triton.question(_TOKENS, _TOKENS_PER_S)
    gaps_ms: list[float] = []
    words = 0

    async with mesh.edge_channel() as edge, triton.channel(mesh) as straight:
        people = [] if direct else await turns.people(edge, _STREAMS)
        asking = [] if direct else [people[number % len(people)] for number in range(_STREAMS)]
        conversations = [await turns.conversation(edge, metadata) for metadata in asking]

        async def one(number: int) -> None:
            nonlocal words
            deltas = (
                triton.stream(straight, text, _TOKENS)
                if direct
                else turns.stream(edge, asking[number], conversations[number], text, _TOKENS)
            )
            before_s = 0.0
            async for delta in deltas:
                now_s = time.perf_counter()
                if before_s:
                    gaps_ms.append((now_s - before_s) * 1000)
                before_s = now_s
                words += len(delta.split())

        await asyncio.gather(*map(one, range(_STREAMS)))
    return words, gaps_ms


def _client(mesh: RunningMesh, direct: bool, results: "multiprocessing.Queue[tuple[int, list[float]]]") -> None:
    results.put(asyncio.run(_stream_all(mesh, direct)))


def measure(mesh: RunningMesh) -> None:
    context = multiprocessing.get_context("spawn")
    print(f"{_STREAMS} streams at {_TOKENS_PER_S} tokens/s for {_SECONDS} s, echo model")
    for name, direct in (("through the edge", False), ("direct to Triton", True)):
        results: multiprocessing.Queue[tuple[int, list[float]]] = context.Queue()
        before = {part: mesh.cpu_seconds(part) for part in _PARTS}
        client = context.Process(target=_client, args=(mesh, direct, results))
        client.start()
        words, gaps_ms = results.get(timeout=120)
        client.join()
        spent = {part: mesh.cpu_seconds(part) - before[part] for part in _PARTS}
        costs = "  ".join(f"{part} {spent[part] / words * 1e6:.1f}" for part in _PARTS)
        p50_ms, p99_ms = percentile(gaps_ms, 0.5), percentile(gaps_ms, 0.99)
        print(f"  {name}: {words} tokens; gaps p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms")
        print(f"    processor ms per 1,000 tokens: {costs}")


def main() -> None:
    with running_mesh("--chat-models=echo") as mesh:
        measure(mesh)


if __name__ == "__main__":
    print(machine())
    main()
