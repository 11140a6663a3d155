"""The RPCs of parley.chat.v1."""

from collections.abc import AsyncIterator
from typing import Protocol
from uuid import UUID

import grpc

from parley.chat.v1.chat_service_pb2 import (
    CancelTurnRequest,
    CancelTurnResponse,
    GetTurnRequest,
    GetTurnResponse,
    RateTurnRequest,
    RateTurnResponse,
    ResumeTurnRequest,
    ResumeTurnResponse,
    StartTurnRequest,
    StartTurnResponse,
)
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceServicer
from services.chat import wire
from services.chat.reading import Reading
from services.chat.turn import Asker, Rating, TurnRecord, turn_not_found
from services.chat.turns import Turns
from services.shared.serving.identity import caller_of


class Records(Protocol):
    """What can be asked of the record without a decision."""

    async def find(self, asker: Asker, turn_id: UUID) -> TurnRecord | None: ...
    async def rate(self, asker: Asker, turn_id: UUID, rating: Rating) -> TurnRecord | None: ...


class ChatService(ChatServiceServicer):
    """A streaming call is one reader of a turn; the turn itself runs beside it."""

    def __init__(self, turns: Turns, records: Records) -> None:
        self._turns = turns
        self._records = records

    async def StartTurn(
        self, request: StartTurnRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[StartTurnResponse]:
        reading = self._turns.start(_asker(context), wire.question(request))
        _leave_with(context, reading)
        async for entry in reading.follow():
            yield wire.response(StartTurnResponse(), entry)

    async def ResumeTurn(
        self, request: ResumeTurnRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[ResumeTurnResponse]:
        reading = await self._turns.resume(_asker(context), UUID(request.turn_id), request.after_sequence)
        _leave_with(context, reading)
        async for entry in reading.follow():
            yield wire.response(ResumeTurnResponse(), entry)

    async def CancelTurn(self, request: CancelTurnRequest, context: grpc.aio.ServicerContext) -> CancelTurnResponse:
        turn = await self._turns.cancel(_asker(context), UUID(request.turn_id))
        return CancelTurnResponse(turn=wire.turn(turn))

    async def GetTurn(self, request: GetTurnRequest, context: grpc.aio.ServicerContext) -> GetTurnResponse:
        turn = await self._records.find(_asker(context), UUID(request.turn_id))
        if turn is None:
            raise turn_not_found()
        return GetTurnResponse(turn=wire.turn(turn))

    async def RateTurn(self, request: RateTurnRequest, context: grpc.aio.ServicerContext) -> RateTurnResponse:
        turn = await self._records.rate(_asker(context), UUID(request.turn_id), wire.rating(request))
        if turn is None:
            raise turn_not_found()
        return RateTurnResponse(turn=wire.turn(turn))


def _asker(context: grpc.aio.ServicerContext) -> Asker:
    caller = caller_of(context)
    return Asker(caller.tenant_id, caller.user_id, caller.token)


def _leave_with(context: grpc.aio.ServicerContext, reading: Reading) -> None:
    # A call that is cancelled leaves its generator where it stands; the callback comes all the same.
    context.add_done_callback(lambda _: reading.leave())
