"""A reader of one turn that comes back when its stream breaks, as every client of ours does."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import grpc

from parley.chat.v1.chat_service_pb2 import CancelTurnRequest, ResumeTurnRequest, StartTurnRequest
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import TurnEvent
from tests.mesh.running import User
from tests.refusals import reason_of

COMING_BACK_S = 0.1
_LAST = ("completed", "failed", "cancelled")


class Follower:
    """Reads a turn from its first event, or joins the one named `turn_id`."""

    def __init__(self, channel: grpc.aio.Channel, user: User, request: StartTurnRequest, turn_id: str = "") -> None:
        self.channel = channel
        self.turn_id = turn_id
        self.events: list[TurnEvent] = []
        self.arrivals: list[float] = []
        self.breaks: Counter[tuple[grpc.StatusCode, str]] = Counter()
        self._user, self._request = user, request
        self._news = asyncio.Event()

    @property
    def numbers(self) -> list[int]:
        return [event.sequence for event in self.events]

    @property
    def words(self) -> str:
        return "".join(event.text_delta.text for event in self.events)

    @property
    def last(self) -> TurnEvent:
        return self.events[-1]

    @property
    def longest_gap_s(self) -> float:
        """Between two events, from the first word on."""
        spoken = [at for at, event in zip(self.arrivals, self.events, strict=True) if event.HasField("text_delta")]
        return max((late - early for early, late in pairwise(spoken)), default=0.0)

    async def follow(self) -> None:
        """To the end, over as many calls as it takes."""
        while not (self.events and self.last.WhichOneof("event") in _LAST):
            try:
                async for response in self._call():
                    self.turn_id = response.event.turn_id
                    self.events.append(response.event)
                    self.arrivals.append(asyncio.get_running_loop().time())
                    self._news.set()
            except grpc.aio.AioRpcError as error:
                self.breaks[error.code(), reason_of(error) or error.details() or ""] += 1
                await asyncio.sleep(COMING_BACK_S)

    async def until(self, word: str) -> None:
        """Until the answer has come so far."""
        async with asyncio.timeout(60):
            while word not in self.words.split():
                await self._news.wait()
                self._news.clear()

    def _call(self) -> Any:
        chat = ChatServiceStub(self.channel)
        if not self.turn_id:
            return chat.StartTurn(self._request, metadata=self._user.metadata)
        after = self.last.sequence if self.events else 0
        request = ResumeTurnRequest(turn_id=self.turn_id, after_sequence=after)
        return chat.ResumeTurn(request, metadata=self._user.metadata)


@asynccontextmanager
async def following(*followers: Follower) -> AsyncIterator[asyncio.Future[Any]]:
    """They read while the body runs; what it gets is done when all have come to the end."""
    done = asyncio.gather(*(follower.follow() for follower in followers))
    try:
        yield done
    finally:
        done.cancel()
        with suppress(asyncio.CancelledError):
            await done


async def cancel(channel: grpc.aio.Channel, user: User, turn_id: str) -> Any:
    """Stop a turn; what became of it."""
    return (await ChatServiceStub(channel).CancelTurn(CancelTurnRequest(turn_id=turn_id), metadata=user.metadata)).turn
