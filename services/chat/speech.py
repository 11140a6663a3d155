"""The model speaking for one turn, until it has finished, is stopped, or the turn's time is over.

A model that dies after its first words is waited for, and goes on from what it had said. One that can't be reached
before that is a refusal at once: nothing was shown yet, and the same request tries again.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from services.chat.live import LiveTurn, Wish
from services.chat.prompt import Prompt
from services.chat.turn import CancellationCause, Cancelled, FinishReason, Turn, Usage
from services.chat.words import Words
from services.shared.errors import Reason, Unavailable

_ENDING_S = 0.1  # so shortly before the turn's deadline, it is the deadline that ended the model's stream
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 0.5


class HandedOver(Exception):
    """This replica stops, and another one goes on with the turn."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What the model said since the piece before; the last one has a finish reason."""

    text: str
    usage: Usage
    finish_reason: FinishReason | None


class Model(Protocol):
    """The models that answer."""

    def speak(
        self, model: str, prompt: Prompt, *, temperature: float | None, interval_s: float, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        """Pieces of the answer: each token at once, or with those of the same interval.

        Closing the iterator frees the model. Raises Refusal.
        """


class Speech:
    """Lets the model put its words into `words` while `run` runs."""

    def __init__(
        self,
        model: Model,
        turn: Turn,
        prompt: Prompt,
        words: Words,
        live: LiveTurn,
        interval_s: Callable[[], float],
        *,
        until_s: float,
        patient: bool,
    ) -> None:
        """`until_s` is a time of the event loop. `patient` waits for the model even before its first words."""
        self.cancelled: Cancelled | None = None  # how it was stopped
        self._model = model
        self._turn = turn
        self._prompt = prompt
        self._words = words
        self._live = live
        self._interval_s = interval_s
        self._until_s = until_s
        self._patient = patient

    async def run(self) -> None:
        """Return when no more words will come, and the model is free."""
        # Only the model is interrupted, never an append: whether that was done would then be unknown.
        speaking = asyncio.create_task(self._speak_on())
        stopping = asyncio.create_task(self._live.stopping())
        tasks = (speaking, stopping)
        try:
            await asyncio.wait(tasks, timeout=self._left_s(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            wish = self._live.wish
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not self._words.closed:
            self._interrupt(wish or Wish(CancellationCause.DEADLINE, self._until_s))

    def _interrupt(self, wish: Wish) -> None:
        if wish.cause is None:
            self._words.fail(HandedOver())
        else:
            self.cancelled = wish.cancelled(wish.cause)
            self._words.cancel()

    async def _speak_on(self) -> None:
        words, pause_s = self._words, FIRST_PAUSE_S
        try:
            while not words.closed:
                said = len(words.spoken)
                try:
                    await self._speak()
                except Unavailable:
                    if not (words.spoken or self._patient or self._left_s() < _ENDING_S):
                        raise
                    pause_s = FIRST_PAUSE_S if len(words.spoken) > said else min(2 * pause_s, LONGEST_PAUSE_S)
                    await asyncio.sleep(pause_s)
        except Exception as error:  # for the writer, which ends the turn by it
            words.fail(error)

    async def _speak(self) -> None:
        words, before = self._words, self._words.usage
        prompt = self._prompt.continued(words.spoken, before.completion_tokens)
        if prompt.max_output_tokens <= 0:
            words.finish(FinishReason.LENGTH)
            return
        pieces = self._model.speak(
            self._turn.model,
            prompt,
            temperature=self._turn.question.temperature,
            interval_s=self._interval_s(),
            limit_s=self._left_s(),
        )
        async with aclosing(pieces):
            async for piece in pieces:
                words.usage = Usage(
                    before.prompt_tokens or piece.usage.prompt_tokens,
                    before.completion_tokens + piece.usage.completion_tokens,
                )
                words.put(piece.text)
                if piece.finish_reason:
                    words.finish(piece.finish_reason)
                elif words.closed:  # longer than an answer may be
                    return
        if not words.closed:
            raise Unavailable(Reason.MODEL_UNAVAILABLE, "The model stopped in the middle. Ask again.")

    def _left_s(self) -> float:
        return max(0.0, self._until_s - asyncio.get_running_loop().time())
