"""One turn, followed to its end over as many calls as it takes.

Before the turn is known, a broken call is repeated with the same request_id, which joins the turn that the first one
may have made; from then on the turn is resumed after the last event that came. So no word is lost or repeated.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from parley_sdk.parley.chat.v1 import (
    CancelTurnRequest,
    ChatServiceStub,
    GetTurnRequest,
    ResumeTurnRequest,
    StartTurnRequest,
    TextDelta,
    TurnCompletion,
    TurnEvent,
    TurnRewound,
    TurnState,
)
from parley_sdk.parley.session.v1 import SessionServiceStub
from stack.client.account import signed_in
from stack.client.conversation import messages
from stack.client.edge import CALL_TIMEOUT_S, Edge, errors, reason_of
from stack.client.lasting import BROKEN, LONGEST_BREAK_S, within

SILENCE_S = 30.0
"""A stream without an event for so long may be dead without having said so, or the turn is silent: it is resumed."""
_TURN_TIMEOUT_S = 330.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_PASSING = {
    "SERVICE_UNAVAILABLE",
    "RECORD_UNAVAILABLE",
    "CONVERSATION_UNAVAILABLE",
    "TURN_LOG_UNAVAILABLE",
    "RATE_LIMITED",
    "TOKEN_EXPIRED",
    # The log lost its tail; the replica that runs the turn is writing it again.
    "SEQUENCE_BEYOND_LOG",
}
"""Refusals of a turn that goes on all the same."""


class Following:
    """The turn of a request. `events` once; `cancel` at any time."""

    def __init__(self, edge: Edge, request: StartTurnRequest, silence_s: float = SILENCE_S) -> None:
        self._edge, self._request = edge, request
        self._silence_s = silence_s
        self._turn_id = ""
        self._last = 0
        self._text = ""
        self._said = False

    async def events(self) -> AsyncIterator[TurnEvent]:
        """Every event to the end; raises what refused the turn, or what last broke it when it stays broken."""
        clock = asyncio.get_running_loop().time
        heard_s, pause_s = clock(), _FIRST_PAUSE_S
        while True:
            try:
                async with aclosing(self._attempt()) as attempt:
                    async for event in attempt:
                        yield event
                        if any(last is not None for last in (event.completed, event.failed, event.cancelled)):
                            return
                        heard_s, pause_s = clock(), _FIRST_PAUSE_S
            except (GRPCError, StreamTerminatedError, OSError) as error:  # TimeoutError is an OSError
                if not self._passes(error) or clock() - heard_s > LONGEST_BREAK_S:
                    raise
                self._say_once()
            if clock() - heard_s > _TURN_TIMEOUT_S:
                raise TimeoutError
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # spreads clients, guards nothing
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def cancel(self) -> bool:
        """Stop the turn. False when the mesh could not be told: it stops the turn when nobody has read it for long."""
        with suppress(GRPCError, StreamTerminatedError, OSError):
            async with signed_in(self._edge) as (channel, metadata):
                request = CancelTurnRequest(turn_id=self._turn_id)
                await ChatServiceStub(channel, metadata=metadata).cancel_turn(request, timeout=CALL_TIMEOUT_S)
                return True
        return False

    async def _attempt(self) -> AsyncGenerator[TurnEvent, None]:
        # A connection and a token of its own: either may be what broke.
        async with signed_in(self._edge) as (channel, metadata):
            chat = ChatServiceStub(channel, metadata=metadata)
            try:
                async for event in within(self._silence_s, self._call(chat)):
                    self._turn_id, self._last = event.turn_id, event.sequence
                    if event.rewound is not None:  # an empty message is false
                        self._text = ""
                    elif event.text_delta is not None:
                        self._text += event.text_delta.text
                    yield event
            except GRPCError as error:
                if reason_of(error) != "TURN_NOT_RESUMABLE":
                    raise
                async for event in self._from_record(chat, SessionServiceStub(channel, metadata=metadata)):
                    yield event
            except TimeoutError:
                if not self._turn_id:
                    raise
                # A turn that waits for its model is silent too; whether the mesh still is there, this call finds out.
                await chat.get_turn(GetTurnRequest(turn_id=self._turn_id), timeout=CALL_TIMEOUT_S)

    async def _call(self, chat: ChatServiceStub) -> AsyncIterator[TurnEvent]:
        if self._turn_id:
            again = ResumeTurnRequest(turn_id=self._turn_id, after_sequence=self._last)
            async for resumed in chat.resume_turn(again, timeout=_TURN_TIMEOUT_S):
                if resumed.event is not None:
                    yield resumed.event
        else:
            async for started in chat.start_turn(self._request, timeout=_TURN_TIMEOUT_S):
                if started.event is not None:
                    yield started.event

    async def _from_record(self, chat: ChatServiceStub, sessions: SessionServiceStub) -> AsyncIterator[TurnEvent]:
        """The rest of a turn that ran without its log, once it has ended. Ends early while the turn runs."""
        request = GetTurnRequest(turn_id=self._turn_id)
        turn = (await chat.get_turn(request, timeout=CALL_TIMEOUT_S)).turn
        if turn is None or turn.state == TurnState.RUNNING:
            return
        said = messages(sessions, turn.conversation_id, turn.id)
        text = "".join([message.text async for message in said if message.id == turn.message_id])
        if not text.startswith(self._text):
            yield TurnEvent(turn_id=turn.id, rewound=TurnRewound())
            self._text = ""
        if rest := text.removeprefix(self._text):
            yield TurnEvent(turn_id=turn.id, text_delta=TextDelta(text=rest))
        if turn.state == TurnState.COMPLETED:
            yield TurnEvent(turn_id=turn.id, completed=TurnCompletion(message_id=turn.message_id))
        raise GRPCError(Status.ABORTED, "The turn was stopped, or failed; these are the words that came.")

    def _passes(self, error: Exception) -> bool:
        if not isinstance(error, GRPCError):
            # Nobody answers the first call of all: there is no mesh, which is better said at once.
            return bool(self._turn_id) or not isinstance(error, ConnectionRefusedError)
        reason = reason_of(error)
        if reason:
            return bool(self._turn_id) and reason in _PASSING
        return error.status in BROKEN

    def _say_once(self) -> None:
        if not self._said:
            self._said = True
            errors.print("The connection to the mesh broke; going on as soon as it is back ...", style="yellow")
