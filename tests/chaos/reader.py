"""A client that does what the contract tells it to: it reads a turn, and after any break goes on after the last
number it has, until it has seen the end or its patience is over.

Deliberate breaks of the client (`flaws`) prove that the verdict bites: "drop" loses an event, "repeat" takes one twice,
"misread" changes a word, "lazy" never resumes.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from parley.chat.v1.chat_service_pb2 import (
    GetTurnRequest,
    ResumeTurnRequest,
    StartTurnRequest,
)
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.turn_pb2 import TurnEvent, TurnState
from tests.chaos.seen import LAST_KINDS, Break, Step, Story, Stream
from tests.refusals import reason_of

AGAIN = {
    "CONVERSATION_UNAVAILABLE",
    "RECORD_UNAVAILABLE",
    "SERVICE_UNAVAILABLE",
    "TURN_LOG_UNAVAILABLE",
    "TOO_MANY_READERS",
    "TOO_MANY_TURNS",
    "RATE_LIMITED",
    "DEADLINE_EXCEEDED",
    # An honest number can be ahead of a log that lost its tail and is being written again.
    "SEQUENCE_BEYOND_LOG",
}
"""Refusals that pass."""
BROKEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
"""Status codes without a reason of ours that a cut connection leaves behind."""


@dataclass(frozen=True)
class Patience:
    """How long a client waits, in seconds."""

    silence_before_text_s: float = 3.0
    silence_s: float = 1.0
    """An answer that pauses this long is taken for a broken stream: the client asks again."""
    silence_again_s: float = 0.5
    """The same after it asked again for the first time: that call may have gone to a replica that stands still."""
    in_all_s: float = 60.0
    """Without any event for this long, it gives up."""
    pauses_s: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    refused_s: float = 1.0
    """Before a question is asked again that the model could not answer; about what RetryInfo says."""


@dataclass
class Client:
    """A user's way to the edge, and what its readers share."""

    chat: ChatServiceStub
    metadata: Callable[[], Any]
    """An awaitable of call metadata with a valid token."""
    patience: Patience = field(default_factory=Patience)
    flaws: frozenset[str] = frozenset()
    passed: Callable[[str], None] = lambda moment: None
    """Told when a reader passes a moment at which a fault may be wanted."""


class Reader:
    """One reader of one turn. `read` once."""

    def __init__(self, client: Client, story: Story, request: StartTurnRequest, turn_id: str = "") -> None:
        self._client, self._story, self._request = client, story, request
        self._turn_id = turn_id
        self._clock = asyncio.get_running_loop().time
        self.stream = Stream(began_s=self._clock(), joined=bool(turn_id))
        story.streams.append(self.stream)
        self.news = asyncio.Event()
        """Set at each event."""
        self.pause_s = 0.0
        """A slow reader waits this long before it takes the next event."""
        self.leave_after: int | None = None
        """Hangs up once, after so many words, and comes back `away_s` later."""
        self.away_s = 0.0
        self._open_break: Break | None = None
        self._wait: Break | None = None
        self._heard_s = self._clock()
        self._tries = 0
        self._spoke = False

    async def read(self) -> Stream:
        """Until the end, a final refusal, or the end of patience."""
        while not self._over:
            if self._open_break:
                self._open_break.asked += 1
            call = await self._call()
            try:
                await self._take_all(call)
                if not self._over:
                    self._broke("the stream ended before the turn")
            except TimeoutError:
                self._broke("silence")
            except grpc.aio.AioRpcError as error:
                await self._judge(error)
            finally:
                call.cancel()
            if self._over:
                break
            patience = self._client.patience
            silent_since_s = self._wait.since_s if self._wait else self._heard_s
            if "lazy" in self._client.flaws or self._clock() - silent_since_s > patience.in_all_s:
                self.stream.given_up = self._open_break.told if self._open_break else "nothing came"
                break
            pause_s = patience.pauses_s[min(self._tries, len(patience.pauses_s) - 1)]
            await asyncio.sleep(patience.refused_s if self._wait and not self._turn_id else pause_s)
            self._tries += 1
        self.news.set()
        return self.stream

    @property
    def _over(self) -> bool:
        stream = self.stream
        return bool(stream.end or stream.settled or stream.refusal)

    async def _call(self) -> Any:
        metadata = await self._client.metadata()
        if self._turn_id:
            again = ResumeTurnRequest(turn_id=self._turn_id, after_sequence=self.stream.last)
            return self._client.chat.ResumeTurn(again, metadata=metadata, timeout=330)
        return self._client.chat.StartTurn(self._request, metadata=metadata, timeout=330)

    async def _take_all(self, call: Any) -> None:
        patience = self._client.patience
        while not self._over:
            silence_s = patience.silence_s if self._spoke else patience.silence_before_text_s
            if self._open_break and self._open_break.asked == 1:
                silence_s = patience.silence_again_s
            async with asyncio.timeout(silence_s):
                response = await call.read()
            if response is grpc.aio.EOF:
                return
            self._take(response.event)
            if self.leave_after is not None and len(self.stream.steps) > self.leave_after:
                self.leave_after = None
                call.cancel()
                await asyncio.sleep(self.away_s)
                self._heard_s = self._clock()
                return
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
                self._heard_s = self._clock()

    def _take(self, event: TurnEvent) -> None:
        stream, kind = self.stream, event.WhichOneof("event")
        self._tries = 0
        self._heard_s = self._clock()
        self._whole_again()
        stream.turn_ids.add(event.turn_id)
        self._turn_id = event.turn_id
        text = event.text_delta.text
        if "misread" in self._client.flaws and " 7" in text:
            text = text.replace(" 7", " 8")
        seen = event
        if kind == "started":  # the one number that may be given twice; whether the log is there is told as of now
            seen = TurnEvent()
            seen.CopyFrom(event)
            seen.started.ClearField("resumable")
        mark = hash(seen.SerializeToString(deterministic=True))
        step = Step(event.sequence, kind, text, mark, self._heard_s)
        if not ("drop" in self._client.flaws and event.sequence == 6):
            stream.steps.append(step)
        if "repeat" in self._client.flaws and event.sequence == 6:
            stream.steps.append(step)
        if kind in LAST_KINDS:
            stream.end = event
        if self._wait and (kind == "text_delta" or (kind in LAST_KINDS and kind != "failed")):
            self._wait.over_s, self._wait = self._heard_s, None
        self._retry_if_it_never_spoke()
        first_word = kind == "text_delta" and not self._spoke
        self._spoke = self._spoke or first_word
        self._client.passed("first-word" if first_word else kind)
        self.news.set()

    def _retry_if_it_never_spoke(self) -> None:
        """A turn that failed for want of a model before its first word is asked for again, under the same request."""
        stream = self.stream
        if stream.end and stream.end.HasField("failed") and not self._spoke:
            self._start_again()

    def _start_again(self) -> None:
        self.stream.restarts += bool(self._turn_id)
        self.stream.void += self.stream.steps
        self.stream.steps.clear()
        self.stream.end = None
        self._turn_id = ""
        self._heard_s = self._clock()
        self._whole_again()
        if self._wait is None:
            self._wait = Break(self._heard_s, "MODEL_UNAVAILABLE")
            self.stream.waits.append(self._wait)

    def _broke(self, why: str) -> None:
        now_s = self._clock()
        if self._open_break is None:
            self._open_break = Break(self._heard_s, why, noticed_s=now_s)
            self.stream.breaks.append(self._open_break)
        self._open_break.tries.append((now_s - self._open_break.since_s, why))

    def _whole_again(self) -> None:
        if self._open_break:
            self._open_break.over_s, self._open_break = self._heard_s, None

    async def _judge(self, error: grpc.aio.AioRpcError) -> None:
        stream, reason = self.stream, reason_of(error)
        if reason == "MODEL_UNAVAILABLE" and not self._spoke:
            self._start_again()
        elif reason == "TURN_NOT_RESUMABLE":
            self._broke(reason)
            await self._settle()
        elif reason in AGAIN or (not reason and error.code() in BROKEN):
            self._broke(reason or f"{error.code().name}: {(error.details() or '')[:60]}")
        elif reason == "TOKEN_EXPIRED":
            self._broke(reason)
        else:
            words = f"{reason or error.code().name}: {(error.details() or '')[:120]}"
            self._broke(words)
            if reason == "INTERNAL":
                stream.undefined.append(words)
            else:
                stream.refusal = words

    async def _settle(self) -> None:
        """Ask the record how the turn stands; it may still run."""
        with suppress(grpc.aio.AioRpcError):
            metadata = await self._client.metadata()
            response = await self._client.chat.GetTurn(
                GetTurnRequest(turn_id=self._turn_id), metadata=metadata, timeout=5
            )
            if response.turn.state == TurnState.TURN_STATE_RUNNING:
                self._heard_s = self._clock()  # bounded by the turn's own deadline
            else:
                self.stream.settled = response.turn
                self._heard_s = self._clock()
                self._whole_again()
