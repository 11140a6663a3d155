"""Answering one turn: open it, find passages, let the model speak, close it.

The run is a task of its own that no client can interrupt, so that every turn that was opened is also closed. Only the
part in which the model speaks can be stopped, by the turn's deadline or by LiveTurn.stop.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from services.chat.live import LiveTurn, TurnTaken
from services.chat.prompt import Prompt, Prompts
from services.chat.turn import (
    Asker,
    Cancelled,
    Completed,
    End,
    Failed,
    FinishReason,
    Message,
    Passage,
    Sources,
    Started,
    TextDelta,
    Turn,
    Usage,
    failure,
)
from services.chat.words import Words
from services.shared.errors import Reason, Refusal, Unavailable

_log = logging.getLogger("parley.chat")


@dataclass(frozen=True, slots=True)
class Piece:
    """What the model said since the piece before; the last one has a finish reason."""

    text: str
    usage: Usage
    finish_reason: FinishReason | None


class Conversations(Protocol):
    """The record of what was said, kept by session."""

    async def open_turn(self, turn: Turn) -> Sequence[Message]:
        """Save the question, return what was said before it, oldest first. Raises session's refusals, as they are."""

    async def close_turn(
        self, turn: Turn, text: str, *, whole: bool, passages: Sequence[Passage], usage: Usage
    ) -> UUID | None:
        """Save the answer, return its message's id; None for an empty one. Raises NotFound or Unavailable."""


class Documents(Protocol):
    """The passages of the organisation's documents, kept by knowledge."""

    async def search(self, asker: Asker, text: str) -> Sequence[Passage]:
        """Passages that fit, best first. Raises Refusal, in time for a person who waits."""


class Model(Protocol):
    """The models that answer."""

    def speak(
        self, model: str, prompt: Prompt, *, temperature: float | None, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        """Pieces of the answer; closing the iterator frees the model. Raises Refusal."""


class TurnMeter(Protocol):
    """What operators count."""

    def first_words(self, model: str, seconds: float) -> None: ...
    def ended(self, model: str, end: End, usage: Usage) -> None: ...


class TurnEnds(Protocol):
    """Where the end of a turn is recorded, with its event for other services."""

    async def finish(self, turn: Turn, end: End, usage: Usage, message_id: UUID | None) -> None:
        """Record how this run of the turn ended. Raises Unavailable."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a turn is answered with."""

    conversations: Conversations
    documents: Documents
    model: Model
    ends: TurnEnds
    meter: TurnMeter
    prompts: Prompts
    deadline_s: float
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class Answer:
    """One run of one turn."""

    def __init__(self, turn: Turn, live: LiveTurn, means: Means) -> None:
        self._turn = turn
        self._live = live
        self._means = means
        self._words = Words()
        self._passages: tuple[Passage, ...] = ()
        self._opened = False

    async def run(self) -> None:
        """Answer to the end. Raises the refusal of a turn that could not be opened; then nothing of it is stored."""
        try:
            history, found = await self._open()
            end = await self._speak(history, found)
        except Refusal as refusal:
            if not self._opened:
                raise
            end = failure(refusal)
        except TurnTaken:
            raise
        except Exception:  # whatever broke: the turn must end, and say so
            _log.exception("a turn broke", extra={"facts": {"turn_id": self._turn.id}})
            end = Failed(Reason.INTERNAL, "Something broke on our side.")
        await self._close(end)

    async def _open(self) -> tuple[Sequence[Message], Sequence[Passage] | None]:
        """History and passages; None for passages that could not be searched."""
        try:
            async with asyncio.TaskGroup() as tasks:
                searching = tasks.create_task(self._search())
                history = await self._means.conversations.open_turn(self._turn)
                self._opened = True
                question = self._turn.question
                await self._live.write(Started(question.conversation_id, self._turn.model, self._means.clock()))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return history, searching.result()

    async def _search(self) -> Sequence[Passage] | None:
        if not self._turn.question.search:
            return ()
        try:
            return await self._means.documents.search(self._turn.asker, self._turn.question.text)
        except Refusal:
            return None

    async def _speak(self, history: Sequence[Message], found: Sequence[Passage] | None) -> End:
        """The model's words into the log, until it has finished or is stopped."""
        if self._live.stop.is_set():
            return Cancelled()
        prompt = self._means.prompts.assemble(self._turn.question, history, found or ())
        self._passages = prompt.passages
        listening = asyncio.create_task(self._listen_until_stopped(prompt))
        try:
            await self._live.write(Sources(prompt.passages, degraded=found is None))
            await self._write_words()
        finally:
            listening.cancel()
            await asyncio.wait((listening,))
        return Cancelled() if self._words.cancelled else Completed(self._words.finish_reason)

    async def _write_words(self) -> None:
        if text := await self._words.take():
            await self._live.write(TextDelta(text))
            self._means.meter.first_words(self._turn.model, self._live.age_s)
        while text := await self._words.take():
            await self._live.write(TextDelta(text))

    async def _listen_until_stopped(self, prompt: Prompt) -> None:
        # Only the model is interrupted, never an append: whether that was done would then be unknown.
        tasks = (asyncio.create_task(self._listen(prompt)), asyncio.create_task(self._live.stop.wait()))
        try:
            await asyncio.wait(tasks, timeout=self._means.deadline_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._words.cancel()

    async def _listen(self, prompt: Prompt) -> None:
        words, question = self._words, self._turn.question
        pieces = self._means.model.speak(
            self._turn.model, prompt, temperature=question.temperature, limit_s=self._means.deadline_s
        )
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    words.usage = piece.usage
                    words.put(piece.text)
                    if piece.finish_reason:
                        words.finish(piece.finish_reason)
                    elif words.closed:  # longer than an answer may be
                        return
            words.fail(Unavailable(Reason.MODEL_UNAVAILABLE, "The model stopped in the middle. Ask again."))
        except Exception as error:  # for the writer, which ends the turn by it
            words.fail(error)

    async def _close(self, end: End) -> None:
        text, usage = self._words.text, self._words.usage
        message_id = None
        try:
            # A turn that failed without a word stays open at session, so that the same request may try again.
            if text or not isinstance(end, Failed):
                whole = isinstance(end, Completed)
                message_id = await self._means.conversations.close_turn(
                    self._turn, text, whole=whole, passages=self._passages, usage=usage
                )
            if not isinstance(end, Failed):
                end = replace(end, message_id=message_id)
        except Refusal as refusal:
            end = failure(refusal)
        try:
            await self._means.ends.finish(self._turn, end, usage, message_id)
        except Refusal as refusal:
            end = failure(refusal)
        self._means.meter.ended(self._turn.model, end, usage)
        await self._live.end(usage, end)
