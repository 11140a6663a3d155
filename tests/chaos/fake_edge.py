"""An edge that is wrong on purpose. It serves turns from memory, breaks off streams at random as a mesh under fire
does, and keeps the contract except for its one flaw: so each check of the verdict is seen to fail.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from parley.chat.v1 import chat_service_pb2 as chat
from parley.chat.v1.chat_service_pb2_grpc import (
    ChatServiceServicer,
    ChatServiceStub,
    add_ChatServiceServicer_to_server,
)
from parley.chat.v1.turn_pb2 import (
    CancellationCause,
    TextDelta,
    Turn,
    TurnCancellation,
    TurnCompletion,
    TurnEvent,
    TurnFailure,
    TurnRewound,
    TurnSources,
    TurnStarted,
    TurnState,
)
from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.session.v1 import session_service_pb2 as session
from parley.session.v1.session_pb2 import Message, MessageRole, MessageState, Usage
from parley.session.v1.session_service_pb2_grpc import (
    SessionServiceServicer,
    SessionServiceStub,
    add_SessionServiceServicer_to_server,
)
from tests.chaos.run import Signed

REWIND = 1_000_000
_DETAIL = Packed()
_DETAIL.Pack(ErrorInfo(reason="MODEL_UNAVAILABLE", domain="parley"))
_STATUS = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="no model", details=[_DETAIL])
NO_MODEL = (("grpc-status-details-bin", _STATUS.SerializeToString()),)


class FakeTurn:
    def __init__(self, request: chat.StartTurnRequest, first: bool) -> None:
        self.turn = Turn(id=str(uuid4()), request_id=request.request_id, conversation_id=request.conversation_id)
        self.turn.state = TurnState.TURN_STATE_RUNNING
        self.request = request
        self.events: list[TurnEvent] = []
        self.first = first
        """Of the whole run."""
        self.follows = 0
        """Calls that have read it so far."""
        self.changed = asyncio.Event()
        self.stop = asyncio.Event()

    def say(self, sequence: int = 0, **event: Any) -> None:
        number = sequence or (self.events[-1].sequence + 1 if self.events else 1)
        self.events.append(TurnEvent(turn_id=self.turn.id, sequence=number, **event))
        self.changed.set()
        self.changed.clear()


class FakeEdge(ChatServiceServicer, SessionServiceServicer):
    def __init__(
        self,
        flaw: str = "",
        seed: int = 1,
        *,
        breaks: float = 0.7,
        break_after: int = 12,
        rewinds: float = 0.3,
        failures: float = 0.0,
    ) -> None:
        """Unless `breaks` is 0, the first call that reads a turn breaks off, and others so often; unless `rewinds`
        is 0, the first turn is rewound, and others so often; unless `failures` is 0, the first turn fails once before
        its first word, and others so often.
        """
        self._failures = failures
        self._flaw, self._rng = flaw, random.Random(seed)
        self._breaks, self._break_after, self._rewinds = breaks, break_after, rewinds
        self._turns: dict[str, FakeTurn] = {}
        self._messages: dict[str, list[Message]] = {}
        self._parents: dict[str, dict[str, str]] = {}
        """By conversation, for each turn, oldest first, the one before it in its branch."""
        self._running: set[asyncio.Task[None]] = set()

    @property
    def states(self) -> list[Any]:
        """Of all turns, oldest first."""
        return [found.turn.state for found in self._turns.values()]

    def _wrong(self, flaw: str) -> bool:
        return self._flaw == flaw

    def _sometimes(self, share: float, first: bool) -> bool:
        return self._rng.random() < share or (first and share > 0)

    async def CreateConversation(self, request: Any, context: Any) -> Any:
        response = session.CreateConversationResponse()
        response.conversation.id = str(uuid4())
        self._messages[response.conversation.id] = []
        self._parents[response.conversation.id] = {}
        return response

    async def ListMessages(self, request: Any, context: Any) -> Any:
        parents = self._parents[request.conversation_id]
        branch = [request.branch_turn_id or next(reversed(parents), "")]
        while below := [turn_id for turn_id, parent in parents.items() if parent == branch[-1]]:
            branch.append(below[-1])
        while parent := parents.get(branch[0], ""):
            branch.insert(0, parent)
        found = [message for message in self._messages[request.conversation_id] if message.turn_id in branch]
        for message in found:
            parent = message.parent_turn_id = parents[message.turn_id]
            beside = [turn_id for turn_id in parents if parents[turn_id] == parent]
            message.sibling_turn_ids[:] = [message.turn_id] if self._wrong("siblings are not told") else beside
        return session.ListMessagesResponse(messages=found)

    def _open(self, found: FakeTurn) -> None:
        """Save the question in its place."""
        request, turn_id = found.request, found.turn.id
        messages, parents = self._messages[request.conversation_id], self._parents[request.conversation_id]
        parent = next(reversed(parents), "")
        if request.follows_turn_id and not self._wrong("the place is not heeded"):
            parent = request.follows_turn_id
        elif replaced := request.replaces_turn_id:
            parent = replaced if self._wrong("a replacement follows") else parents[replaced]
            if self._wrong("a question is overwritten"):
                next(message for message in messages if message.turn_id == replaced).text = request.text + "!"
            if self._wrong("an answer is overwritten"):
                messages[:] = [
                    message
                    for message in messages
                    if (message.turn_id, message.role) != (replaced, MessageRole.MESSAGE_ROLE_ASSISTANT)
                ]
        copies = {"the question is lost": 0, "the question stands twice": 2}.get(self._flaw, 1)
        role = MessageRole.MESSAGE_ROLE_USER
        messages += [Message(id=str(uuid4()), turn_id=turn_id, role=role, text=request.text) for _ in range(copies)]
        parents[turn_id] = parent
        if request.replaces_turn_id and self._wrong("a sibling is made twice"):
            twin = Message(id=str(uuid4()), turn_id=str(uuid4()), role=role, text=request.text)
            messages.append(twin)
            parents[twin.turn_id] = parent

    async def GetTurn(self, request: Any, context: Any) -> Any:
        turn = next(found.turn for found in self._turns.values() if found.turn.id == request.turn_id)
        return chat.GetTurnResponse(turn=turn)

    async def CancelTurn(self, request: Any, context: Any) -> Any:
        found = next(found for found in self._turns.values() if found.turn.id == request.turn_id)
        found.stop.set()
        while found.turn.state == TurnState.TURN_STATE_RUNNING and not self._wrong("cancel leaves it running"):
            await found.changed.wait()
        return chat.CancelTurnResponse(turn=found.turn)

    async def StartTurn(self, request: Any, context: Any) -> AsyncIterator[Any]:
        known = self._turns.get(request.request_id)
        if known is None or self._wrong("a copy makes a second turn"):
            known = FakeTurn(request, first=not self._turns)
            name = f"{request.request_id} {len(self._turns)}" if self._wrong("a copy makes a second turn") else ""
            self._turns[name or request.request_id] = known
            self._begin(known)
        elif known.turn.state == TurnState.TURN_STATE_FAILED:
            known.turn.state = TurnState.TURN_STATE_RUNNING
            del known.events[1:]
            if not self._wrong("a retry numbers anew"):
                known.say(2 * REWIND, rewound=TurnRewound())
            self._begin(known)
        async for event in self._follow(known, 0, context):
            yield chat.StartTurnResponse(event=event)

    def _begin(self, found: FakeTurn) -> None:
        task = asyncio.create_task(self._run(found))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def ResumeTurn(self, request: Any, context: Any) -> AsyncIterator[Any]:
        found = next(found for found in self._turns.values() if found.turn.id == request.turn_id)
        if self._wrong("resume is refused"):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such turn")
        if self._wrong("resume is silent"):
            await asyncio.Event().wait()
        after = request.after_sequence
        after += 1 if self._wrong("resume skips") and after else 0
        after -= 1 if self._wrong("resume repeats") and after else 0
        async for event in self._follow(found, after, context):
            yield chat.ResumeTurnResponse(event=event)

    async def _follow(self, found: FakeTurn, after: int, context: Any) -> AsyncIterator[TurnEvent]:
        first = found.follows == 0
        found.follows += 1
        sent, breaks = 0, self._sometimes(self._breaks, first)
        while True:
            for event in [event for event in found.events if event.sequence > after]:
                if breaks and sent >= self._break_after:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the wire broke")
                after, sent = event.sequence, sent + 1
                if first and event.sequence == 9 and self._wrong("a reader is told otherwise"):
                    event = TurnEvent(
                        turn_id=event.turn_id, sequence=event.sequence, text_delta=TextDelta(text="foreign")
                    )
                yield event
            if found.events and found.events[-1].sequence > after:
                continue  # said while the last ones were sent
            if found.turn.state == TurnState.TURN_STATE_FAILED:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "no model", NO_MODEL)
            if found.turn.state != TurnState.TURN_STATE_RUNNING:
                return
            await found.changed.wait()

    async def _run(self, found: FakeTurn) -> None:
        """The turn, up to its saved answer."""
        request = found.request
        total = int(request.text.split()[0].removeprefix("tokens="))
        if not found.events:
            self._open(found)
            found.say(started=TurnStarted(conversation_id=request.conversation_id, model="echo", resumable=True))
            if self._sometimes(self._failures, found.first):
                found.turn.state = TurnState.TURN_STATE_FAILED
                found.say(failed=TurnFailure(reason=ErrorReason.ERROR_REASON_MODEL_UNAVAILABLE))
                return
        found.say(sources=TurnSources())
        words: list[str] = []
        rewinds_at = total // 2 if self._sometimes(self._rewinds, found.first) else 0
        while len(words) < total and not found.stop.is_set():
            await asyncio.sleep(0)
            if self._wrong("the turn hangs") and len(words) == 7:
                return
            if self._wrong("waits for the stop") and len(words) == 7:
                await found.stop.wait()
                break
            to_be_stopped = request.text.endswith("in the manner cancel") and not request.replaces_turn_id
            if to_be_stopped and len(words) == total - 1:
                await found.stop.wait()  # or the end would come first
                break
            if self._wrong("stopped for no reason") and len(words) == 7:
                break
            if rewinds_at and len(words) == rewinds_at:
                found.say(found.events[-1].sequence + REWIND, rewound=TurnRewound())
                found.say(text_delta=TextDelta(text="".join(words)))
                rewinds_at = 0
            word = f"{' ' if words else ''}{len(words) + 1}"
            words.append(" 0" if self._wrong("a word is wrong") and len(words) == 7 else word)
            jump = found.events[-1].sequence + 2 if self._wrong("a number is left out") and len(words) == 7 else 0
            found.say(jump, text_delta=TextDelta(text=words[-1]))
        self._end(found, words, total)

    def _end(self, found: FakeTurn, words: list[str], total: int) -> None:
        whole = len(words) == total
        usage = Usage(prompt_tokens=4, completion_tokens=len(words) * (2 if self._wrong("charged twice") else 1))
        answer = Message(id=str(uuid4()), turn_id=found.turn.id, role=MessageRole.MESSAGE_ROLE_ASSISTANT, usage=usage)
        answer.text = "".join(words[:-1] if self._wrong("the saved answer lacks a word") else words)
        answer.state = MessageState.MESSAGE_STATE_COMPLETE if whole else MessageState.MESSAGE_STATE_INTERRUPTED
        answers = {"the answer is lost": 0, "two answers": 2}.get(self._flaw, 1)
        self._messages[found.request.conversation_id] += [answer] * answers
        found.turn.usage.CopyFrom(usage)
        found.turn.message_id = answer.id
        found.say(usage=usage)
        if whole:
            found.turn.state = TurnState.TURN_STATE_COMPLETED
            found.say(completed=TurnCompletion(message_id=answer.id))
        else:
            found.turn.state = TurnState.TURN_STATE_CANCELLED
            cause = CancellationCause.CANCELLATION_CAUSE_REQUESTED
            if not found.stop.is_set():
                cause = CancellationCause.CANCELLATION_CAUSE_NO_READER
            found.say(cancelled=TurnCancellation(message_id=answer.id, cause=cause))

    async def end(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


@asynccontextmanager
async def listening(edge: FakeEdge) -> AsyncIterator[str]:
    """The address of that edge while it serves."""
    server = grpc.aio.server()
    add_ChatServiceServicer_to_server(edge, server)
    add_SessionServiceServicer_to_server(edge, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
        await edge.end()


@asynccontextmanager
async def serving(edge: FakeEdge, users: int) -> AsyncIterator[list[Signed]]:
    """Users of that edge, over real gRPC."""

    async def nobody() -> Any:
        return ()

    async with listening(edge) as address, grpc.aio.insecure_channel(address) as channel:
        stubs = ChatServiceStub(channel), SessionServiceStub(channel)
        yield [Signed(f"user {number}", *stubs, nobody) for number in range(1, users + 1)]
