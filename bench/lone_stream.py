"""Does a lone stream pass on every token at once, and how much later does the first one come than from Triton itself?

Alternates one turn through the edge with one call straight to Triton, one at a time, on a warm mesh. Goals: at most
20 ms added to the first token (p50), and every token in an event of its own.
"""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bench import triton, turns
from bench.mesh import RunningMesh, machine, percentile, running_mesh

_WARM_UP, _ROUNDS = 10, 60
_TOKENS, _TOKENS_PER_S = 40, 50
_LONGEST_S = 300


@dataclass
class Seen:
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    tokens_per_event: list[int] = field(default_factory=list)

    async def take(self, deltas: AsyncIterator[str]) -> None:
        before_s = began_s = time.perf_counter()
        first = True
        async for delta in deltas:
            now_s = time.perf_counter()
            (self.first_ms if first else self.gaps_ms).append((now_s - (began_s if first else before_s)) * 1000)
            first, before_s = False, now_s
            self.tokens_per_event.append(len(delta.split()))


async def _alternate(mesh: RunningMesh) -> tuple[Seen, Seen]:
    text = triton.question(_TOKENS, _TOKENS_PER_S)
    async with mesh.edge_channel() as edge, triton.channel(mesh) as direct:
        through, straight = Seen(), Seen()
        for number in range(_WARM_UP + _ROUNDS):
            if number == _WARM_UP:
                through, straight = Seen(), Seen()
            conversation_id = await turns.conversation(edge, mesh.metadata)
            await through.take(turns.stream(edge, mesh.metadata, conversation_id, text, _TOKENS))
            await straight.take(triton.stream(direct, text, _TOKENS))
    return through, straight


def _client(mesh: RunningMesh, results: "multiprocessing.Queue[tuple[Seen, Seen]]") -> None:
    results.put(asyncio.run(_alternate(mesh)))


def measure(mesh: RunningMesh) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[Seen, Seen]] = context.Queue()
    client = context.Process(target=_client, args=(mesh, results))
    client.start()
    through, straight = results.get(timeout=_LONGEST_S)
    client.join()
    print(f"a lone stream, {_TOKENS} tokens at {_TOKENS_PER_S}/s, {_ROUNDS} turns one at a time, echo model")
    for name, seen in (("through the edge", through), ("direct to Triton", straight)):
        alone = sum(count == 1 for count in seen.tokens_per_event) / len(seen.tokens_per_event)
        print(
            f"  {name}: first token p50 {percentile(seen.first_ms, 0.5):.1f} ms, p99 "
            f"{percentile(seen.first_ms, 0.99):.1f} ms; gaps p50 {percentile(seen.gaps_ms, 0.5):.1f} ms, p99 "
            f"{percentile(seen.gaps_ms, 0.99):.1f} ms; {alone:.1%} of the events carry one token"
        )
    added_ms = percentile(through.first_ms, 0.5) - percentile(straight.first_ms, 0.5)
    print(f"  added: {added_ms:.1f} ms p50 (goal 20 ms)")


def main() -> None:
    with running_mesh("--chat-models=echo") as mesh:
        measure(mesh)


if __name__ == "__main__":
    print(machine())
    main()
