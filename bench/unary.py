"""What does a unary call cost through the edge, and how many fit in a second?

GetMe: JWT check and rate limit at the edge, mutual TLS, token check in the service, one PostgreSQL read. Beside it
the same call past the edge (mutual TLS to auth as the edge makes it), and a health call straight to Triton.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench import triton
from bench.mesh import RunningMesh, machine, percentile, running_mesh
from parley.auth.v1.user_service_pb2 import GetMeRequest
from parley.auth.v1.user_service_pb2_grpc import UserServiceStub

_WARM_UP, _ROUNDS = 100, 1000
_CLIENTS, _SECONDS = 16, 5


async def _line(name: str, call: Callable[[], Awaitable[object]]) -> None:
    times_ms: list[float] = []
    for _ in range(_WARM_UP + _ROUNDS):
        began_s = time.perf_counter()
        await call()
        times_ms.append((time.perf_counter() - began_s) * 1000)
    times_ms = times_ms[_WARM_UP:]
    done = 0
    ends_s = time.perf_counter() + _SECONDS

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < ends_s:
            await call()
            done += 1

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    print(
        f"  {name:<28} p50 {percentile(times_ms, 0.5):5.2f} ms   p99 {percentile(times_ms, 0.99):5.2f} ms   "
        f"{done / _SECONDS:6.0f} calls/s with {_CLIENTS} clients"
    )


async def measure(mesh: RunningMesh) -> None:
    print(f"unary calls, {_ROUNDS} one at a time, then {_CLIENTS} clients for {_SECONDS} s; client on the same cores")
    async with (
        mesh.edge_channel() as edge,
        mesh.mesh_channel(mesh.address("auth"), "auth", "edge") as past_edge,
        triton.channel(mesh) as direct,
    ):

        def get_me(channel: grpc.aio.Channel) -> Callable[[], Awaitable[object]]:
            return lambda: UserServiceStub(channel).GetMe(GetMeRequest(), metadata=mesh.metadata)

        await _line("GetMe through the edge", get_me(edge))
        await _line("GetMe past the edge", get_me(past_edge))
        alive = service_pb2_grpc.GRPCInferenceServiceStub(direct).ServerLive
        await _line("ServerLive direct to Triton", lambda: alive(service_pb2.ServerLiveRequest()))


def main() -> None:
    with running_mesh("--chat-models=echo") as mesh:
        asyncio.run(measure(mesh))


if __name__ == "__main__":
    print(machine())
    main()
