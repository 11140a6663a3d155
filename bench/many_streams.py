"""What do many streams at once get, and what do they cost?

500 streams at 20 tokens/s, 20 s long, starting over 5 s: the gaps between events that a client sees; goal p99 150 ms.
200 streams at 50 tokens/s that start at the same moment: time to the first token, goal p50 250 ms; and the processor
time of edge, chat and Valkey together, goal 40 ms per 1,000 tokens. Each beside the same load straight on Triton. As
many users ask as the limit of open turns makes necessary. The clients are a process of their own, so that their work
is not in the figures; on few cores it still takes its share.
"""

import asyncio
import multiprocessing
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import grpc

from bench import triton, turns
from bench.mesh import RunningMesh, machine, percentile, running_mesh

_PARTS = ("envoy", "chat", "valkey", "session", "postgres", "triton")
_COUNTED = ("envoy", "chat", "valkey")
_CHANNELS = 20  # a connection of the edge carries at most 100 streams
_LONGEST_S = 180


@dataclass(frozen=True)
class Load:
    streams: int
    tokens_per_s: int
    seconds: int
    starts_within_s: float

    @property
    def tokens(self) -> int:
        return self.tokens_per_s * self.seconds

    def __str__(self) -> str:
        return f"{self.streams} streams at {self.tokens_per_s} tokens/s for {self.seconds} s"


@dataclass
class Seen:
    """By the clients of one load."""

    words: int = 0
    events: int = 0
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


STEADY = Load(500, 20, 20, 5.0)
SUDDEN = Load(200, 50, 10, 0.0)


async def _stream_all(mesh: RunningMesh, load: Load, direct: bool) -> Seen:
    seen = Seen()
    text = triton.question(load.tokens, load.tokens_per_s)
    async with AsyncExitStack() as kept:
        opening = [triton.channel(mesh) if direct else mesh.edge_channel() for _ in range(_CHANNELS)]
        channels = [await kept.enter_async_context(channel) for channel in opening]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        people = [] if direct else await turns.people(channels[0], load.streams)
        asking = [] if direct else [people[number % len(people)] for number in range(load.streams)]
        conversations = [await turns.conversation(channels[0], metadata) for metadata in asking]

        async def one(number: int) -> None:
            await asyncio.sleep(number / load.streams * load.starts_within_s)
            channel = channels[number % _CHANNELS]
            before_s = began_s = time.perf_counter()
            deltas = (
                triton.stream(channel, text, load.tokens)
                if direct
                else turns.stream(channel, asking[number], conversations[number], text, load.tokens)
            )
            first = True
            async for delta in deltas:
                now_s = time.perf_counter()
                if first:
                    seen.first_ms.append((now_s - began_s) * 1000)
                else:
                    seen.gaps_ms.append((now_s - before_s) * 1000)
                first, before_s = False, now_s
                seen.words += len(delta.split())
                seen.events += 1

        for result in await asyncio.gather(*map(one, range(load.streams)), return_exceptions=True):
            if isinstance(result, grpc.aio.AioRpcError):
                seen.failed.append(f"{result.code().name}: {result.details()}")
            elif isinstance(result, BaseException):
                seen.failed.append(repr(result))
    return seen


def _client(mesh: RunningMesh, load: Load, direct: bool, results: "multiprocessing.Queue[Seen]") -> None:
    results.put(asyncio.run(_stream_all(mesh, load, direct)))


def line(mesh: RunningMesh, load: Load, direct: bool) -> tuple[Seen, dict[str, float]]:
    """What the clients saw, and processor ms per 1,000 tokens by part."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Seen] = context.Queue()
    before = {part: mesh.cpu_seconds(part) for part in _PARTS}
    client = context.Process(target=_client, args=(mesh, load, direct, results))
    client.start()
    seen = results.get(timeout=_LONGEST_S)
    client.join()
    words = max(seen.words, 1)
    costs = {part: (mesh.cpu_seconds(part) - before[part]) / words * 1e6 for part in _PARTS}
    p50, p99 = percentile(seen.gaps_ms or [0], 0.5), percentile(seen.gaps_ms or [0], 0.99)
    first, late = percentile(seen.first_ms or [0], 0.5), percentile(seen.first_ms or [0], 0.99)
    print(f"  {'direct to Triton' if direct else 'through the edge'}: {seen.words} tokens in {seen.events} events")
    print(f"    first token p50 {first:.0f} ms, p99 {late:.0f} ms; gaps p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print("    processor ms per 1,000 tokens: " + "  ".join(f"{part} {costs[part]:.1f}" for part in _PARTS))
    if seen.failed or seen.words != load.streams * load.tokens:
        print(f"    {len(seen.failed)} streams failed: {', '.join(sorted(set(seen.failed))[:3])}")
    return seen, costs


def measure(mesh: RunningMesh) -> None:
    print(f"{STEADY}, echo model")
    seen, _ = line(mesh, STEADY, direct=False)
    line(mesh, STEADY, direct=True)
    print(f"  p99 gap {percentile(seen.gaps_ms or [0], 0.99):.0f} ms (goal 150 ms)")
    print(f"{SUDDEN}, all at once, echo model")
    seen, costs = line(mesh, SUDDEN, direct=False)
    line(mesh, SUDDEN, direct=True)
    print(
        f"  first token p50 {percentile(seen.first_ms or [0], 0.5):.0f} ms (goal 250 ms); edge, chat and Valkey "
        f"{sum(costs[part] for part in _COUNTED):.1f} ms per 1,000 tokens (goal 40 ms)"
    )


def main() -> None:
    with running_mesh("--chat-models=echo") as mesh:
        measure(mesh)


if __name__ == "__main__":
    print(machine())
    main()
