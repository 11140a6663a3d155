"""Replicas that stop and come back behind the edge: who calls notices nothing while one of them serves."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import grpc

from parley.session.v1 import session_service_pb2, session_service_pb2_grpc
from stack.envoy import takes_calls_to
from stack.mesh import Options
from stack.process import attempt
from stack.services import STOPPING
from tests.conftest import Signer
from tests.edge.answers import grpc_refusal
from tests.edge.conftest import Edge, edge_in_front, serving

CALLS_PER_S = 100
LAME_DUCK_S = float(STOPPING["PARLEY_LAME_DUCK_S"])


class Callers:
    """Changes, which nobody may repeat, at a steady rate; how they ended, by status and reason."""

    def __init__(self, edge: Edge, signer: Signer) -> None:
        self._edge, self._signer = edge, signer
        self.ends: Counter[tuple[grpc.StatusCode, str]] = Counter()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(self._edge.target) as channel, asyncio.TaskGroup() as calls:
            stub = session_service_pb2_grpc.SessionServiceStub(channel)
            rate = calls.create_task(self._go_on(stub, calls))
            yield
            rate.cancel()

    async def _go_on(self, stub: session_service_pb2_grpc.SessionServiceStub, calls: asyncio.TaskGroup) -> None:
        while True:
            calls.create_task(self._call(stub))
            await asyncio.sleep(1 / CALLS_PER_S)

    async def _call(self, stub: session_service_pb2_grpc.SessionServiceStub) -> None:
        request = session_service_pb2.CreateConversationRequest(request_id=str(uuid4()), title="one")
        end = grpc.StatusCode.OK, ""
        try:
            await stub.CreateConversation(request, metadata=self._signer.metadata(), timeout=10)
        except grpc.aio.AioRpcError as error:
            told = "grpc-status-details-bin" in dict(error.trailing_metadata() or ())
            end = grpc_refusal(error) if told else (error.code(), f"no reason: {error.details()}")
        self.ends[end] += 1

    async def more(self, number: int) -> None:
        """Until so many more calls have ended."""
        wanted = self.ends.total() + number
        while self.ends.total() < wanted:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def two_replicas(
    folder: Path, signer: Signer
) -> AsyncIterator[tuple[Edge, Callable[[str], Awaitable[Callable[[], Awaitable[None]]]]]]:
    """An edge before two replicas of session, which the test starts by name; that gives what stops each."""
    options = Options(http_port=0, https_port=0, replicas={"session": 2})
    async with edge_in_front(folder, signer.jwks_file, {}, options=options) as edge, asyncio.timeout(60):
        open_contexts = []

        async def start(replica: str) -> Callable[[], Awaitable[None]]:
            context = serving(edge, replica, "session", lame_duck_s=LAME_DUCK_S, stop_grace_s=5)
            open_contexts.append(context)
            return await context.__aenter__()

        try:
            yield edge, start
        finally:
            for context in open_contexts:
                await context.__aexit__(None, None, None)


async def test_no_call_fails_while_each_of_two_replicas_restarts_in_turn(tmp_path: Path, signer: Signer) -> None:
    async with two_replicas(tmp_path, signer) as (edge, start):
        stops = {name: await start(name) for name in ("session-1", "session-2")}
        for name in stops:
            await noticed(edge, name)
        callers = Callers(edge, signer)
        async with callers.calling():
            await callers.more(CALLS_PER_S)
            for name, stop in stops.items():
                await stop()
                await start(name)
                await noticed(edge, name)
            await callers.more(CALLS_PER_S)
    assert callers.ends.keys() == {(grpc.StatusCode.OK, "")}, callers.ends


async def noticed(edge: Edge, replica: str) -> None:
    """Wait until the edge sends calls to it."""
    while await attempt(partial(takes_calls_to, edge.mesh, replica)):
        await asyncio.sleep(0.02)


async def test_without_a_replica_calls_are_told_when_to_come_back(tmp_path: Path, signer: Signer) -> None:
    async with two_replicas(tmp_path, signer) as (edge, start):
        stop = await start("session-1")
        await noticed(edge, "session-1")
        callers = Callers(edge, signer)
        async with callers.calling():
            await callers.more(CALLS_PER_S)
            await stop()
            await callers.more(CALLS_PER_S)
            await start("session-1")
            await noticed(edge, "session-1")
        assert callers.ends.keys() == {
            (grpc.StatusCode.OK, ""),
            (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE"),
        }
