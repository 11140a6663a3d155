"""The RPC of parley.chat.v1."""

from collections.abc import AsyncIterator

import grpc

from parley.chat.v1.chat_service_pb2 import StartTurnRequest, StartTurnResponse
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceServicer
from services.chat import wire
from services.chat.turn import Asker
from services.chat.turns import Turns
from services.shared.serving.identity import caller_of


class ChatService(ChatServiceServicer):
    """A call is one reader of a turn; the turn itself runs beside it."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def StartTurn(
        self, request: StartTurnRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[StartTurnResponse]:
        turn = self._turns.start(_asker(context), wire.question(request))
        # A call that is cancelled leaves this generator where it stands; the callback comes all the same.
        context.add_done_callback(lambda _: turn.leave())
        async for entry in turn.follow():
            yield wire.start_turn_response(entry)


def _asker(context: grpc.aio.ServicerContext) -> Asker:
    caller = caller_of(context)
    return Asker(caller.tenant_id, caller.user_id, caller.token)
