"""Calls of knowledge that outlast a broken connection, a service that restarts and a token that expires."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from parley_sdk.parley.knowledge.v1 import KnowledgeServiceStub
from stack.client.account import signed_in
from stack.client.edge import Edge, errors, reason_of

T = TypeVar("T")
LONGEST_BREAK_S = 60.0
"""How long a call is repeated without anything new."""
BROKEN = {Status.UNAVAILABLE, Status.CANCELLED, Status.INTERNAL, Status.UNKNOWN, Status.DEADLINE_EXCEEDED}
"""What a cut connection leaves behind; only without a reason of the mesh."""
_UNTOLD = {"RATE_LIMITED", "TOKEN_EXPIRED", "UPLOAD_OFFSET_MISMATCH"}
_PASSING = {"SERVICE_UNAVAILABLE", "RECORD_UNAVAILABLE", "STORAGE_UNAVAILABLE", "DEADLINE_EXCEEDED", *_UNTOLD}
"""Refusals of a call that may be repeated; nothing is broken in the first ones."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class Lasting:
    """The way to a mesh for many calls at the same time."""

    def __init__(self, edge: Edge, longest_break_s: float = LONGEST_BREAK_S) -> None:
        self._edge, self._longest_break_s = edge, longest_break_s
        self._signing_in = asyncio.Lock()
        self._said = False

    async def call(self, attempt: Callable[[KnowledgeServiceStub], Awaitable[T]], progress: Callable[[], object]) -> T:
        """What `attempt` returns.

        It is repeated over a new connection after a fault that passes, so it must bear that. Raises what refused it,
        or what last broke it when `progress` has not changed for too long.
        """
        clock = asyncio.get_running_loop().time
        seen, moved_s, pause_s = progress(), clock(), _FIRST_PAUSE_S
        while True:
            try:
                async with self._knowledge() as knowledge:
                    return await attempt(knowledge)
            except (GRPCError, StreamTerminatedError, OSError) as error:  # TimeoutError is an OSError
                if not _passes(error):
                    raise
                if progress() != seen:
                    seen, moved_s, pause_s = progress(), clock(), _FIRST_PAUSE_S
                elif clock() - moved_s > self._longest_break_s:
                    raise
                self._say_once(error)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # spreads clients, guards nothing
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _knowledge(self) -> AsyncIterator[KnowledgeServiceStub]:
        # A connection and a token of its own: either may be what broke.
        async with AsyncExitStack() as opened:
            async with self._signing_in:  # whoever waited for the lock of the session would stop whoever holds it
                channel, metadata = await opened.enter_async_context(signed_in(self._edge))
            yield KnowledgeServiceStub(channel, metadata=metadata)

    def _say_once(self, error: Exception) -> None:
        if not self._said and not (isinstance(error, GRPCError) and reason_of(error) in _UNTOLD):
            self._said = True
            errors.print("The connection to the mesh broke; going on as soon as it is back ...", style="yellow")


def _passes(error: Exception) -> bool:
    if not isinstance(error, GRPCError):
        return True
    reason = reason_of(error)
    return reason in _PASSING if reason else error.status in BROKEN


async def within(silence_s: float, events: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same events; raises TimeoutError when none comes for so long."""
    while True:
        try:
            async with asyncio.timeout(silence_s):
                event = await anext(events)
        except StopAsyncIteration:
            return
        yield event
