"""How much memory do readers take who wait for a slow turn?

1,000 readers on ResumeTurn of one running turn that says a word every ten seconds. Memory of edge, chat and Valkey
(PSS) before they come and while they wait; goal: at most 100 MB more. The readers are a process of their own.
"""

import asyncio
import multiprocessing
import uuid
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection

import grpc

from bench import triton, turns
from bench.mesh import RunningMesh, machine, memory_bytes, running_mesh
from parley.chat.v1.chat_service_pb2 import CancelTurnRequest, ResumeTurnRequest, StartTurnRequest, TurnOptions
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub

_READERS, _CHANNELS = 1000, 20
_PARTS = ("envoy", "chat", "valkey")
_LONGEST_S = 120


async def _read(mesh: RunningMesh, orders: Connection) -> None:
    """Says "started", "reading", and ends when told."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as kept:
        channels = [await kept.enter_async_context(mesh.edge_channel()) for _ in range(_CHANNELS)]
        chat = ChatServiceStub(channels[0])
        request = StartTurnRequest(
            request_id=str(uuid.uuid4()),
            conversation_id=await turns.conversation(channels[0], mesh.metadata),
            text=triton.question(1000, 0.1),
            options=TurnOptions(model="echo", search=False),
        )
        first = chat.StartTurn(request, metadata=mesh.metadata)
        turn_id = (await first.read()).event.turn_id
        orders.send("started")
        await loop.run_in_executor(None, orders.recv)
        ready = asyncio.Semaphore(0)

        async def reader(number: int) -> None:
            stub = ChatServiceStub(channels[number % _CHANNELS])
            call = stub.ResumeTurn(ResumeTurnRequest(turn_id=turn_id), metadata=mesh.metadata)
            await call.read()
            ready.release()
            while await call.read() is not grpc.aio.EOF:
                pass

        reading = [asyncio.create_task(reader(number)) for number in range(_READERS)]
        try:
            arriving = asyncio.create_task(_count(ready, _READERS))
            await asyncio.wait([arriving, *reading], return_when=asyncio.FIRST_COMPLETED, timeout=_LONGEST_S / 2)
            arriving.cancel()
            failed = [task.exception() for task in reading if task.done()]
            orders.send(f"{len(failed)} readers failed, the first by: {failed[0]}" if failed else "reading")
            await loop.run_in_executor(None, orders.recv)
            await chat.CancelTurn(CancelTurnRequest(turn_id=turn_id), metadata=mesh.metadata)
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)


async def _count(arrivals: asyncio.Semaphore, number: int) -> None:
    """Until so many have come."""
    for _ in range(number):
        await arrivals.acquire()


def _client(mesh: RunningMesh, orders: Connection) -> None:
    asyncio.run(_read(mesh, orders))


def _memory(mesh: RunningMesh) -> dict[str, int]:
    found = memory_bytes(mesh)
    return {part: sum(size for name, size in found.items() if name.partition("-")[0] == part) for part in _PARTS}


def _heard(orders: Connection) -> str:
    if not orders.poll(_LONGEST_S):
        raise TimeoutError(f"the readers said nothing for {_LONGEST_S} s")
    return str(orders.recv())


def measure(mesh: RunningMesh) -> None:
    print(f"{_READERS} readers of one running turn, {_CHANNELS} connections, echo model")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    client = context.Process(target=_client, args=(mesh, theirs))
    client.start()
    try:
        _heard(ours)
        before = _memory(mesh)
        ours.send("come")
        heard = _heard(ours)
        after = _memory(mesh)
        ours.send("go")
        client.join(_LONGEST_S)
    finally:
        client.terminate()
    if heard != "reading":
        print(f"  {heard}")
        return
    for part in _PARTS:
        print(f"  {part:<8}{before[part] / 1e6:8.0f} MB before {after[part] / 1e6:8.0f} MB with them")
    print(f"  together {(sum(after.values()) - sum(before.values())) / 1e6:.0f} MB more (goal 100 MB)")


def main() -> None:
    with running_mesh("--chat-models=echo", environment=turns.MANY_READERS) as mesh:
        measure(mesh)


if __name__ == "__main__":
    print(machine())
    main()
