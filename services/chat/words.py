"""The words on their way from the model to the log.

The model's pump puts them in; the writer takes out whatever has come since its last append. So a lone stream passes
every token on at once, and a stream whose log is slow shares events instead of queueing them. What waits here is
bounded by the longest answer.
"""

import asyncio
import math
from collections.abc import Iterator

from services.chat.pace import TICK_S
from services.chat.turn import MAX_ANSWER_CHARACTERS, FinishReason, Usage

MAX_DELTA_BYTES = 4000


class Words:
    """One answer as it is made: one task puts, one task takes."""

    def __init__(self, said: str = "", usage: Usage | None = None) -> None:
        """`said` and `usage`: what another replica had of the answer."""
        self.usage = usage or Usage()
        self.finish_reason = FinishReason.STOP
        self.cancelled = False
        self._said = [said]
        self._characters = len(said)
        self._waiting = ""
        self._error: Exception | None = None
        self._closed = False
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._interval_s = 0.0
        self._taken_s = float("-inf")
        self._bell: asyncio.TimerHandle | None = None  # wakes `take` when the interval is over
        self._rung = False

    @property
    def text(self) -> str:
        """All that was taken out so far."""
        return "".join(self._said)

    @property
    def spoken(self) -> str:
        """All that was put in so far."""
        return self.text + self._waiting

    @property
    def closed(self) -> bool:
        """Nothing more will come."""
        return self._closed

    def put(self, text: str) -> None:
        """Add words; those beyond the longest answer are dropped, and close it."""
        text = text.replace("\0", "")  # the one character that the record can't hold
        room = MAX_ANSWER_CHARACTERS - self._characters
        if len(text) > room:
            text = text[:room]
            self.finish(FinishReason.LENGTH)
        self._characters += len(text)
        self._waiting += text
        self._wake()

    def finish(self, reason: FinishReason) -> None:
        """The model has said everything."""
        self.finish_reason = reason
        self._close()

    def fail(self, error: Exception) -> None:
        """The model can't go on: `take` raises this after the words that came before it."""
        if not self._closed:
            self._error = error
            self._close()

    def cancel(self) -> None:
        """Drop what waits, unless the model has finished."""
        if not self._closed:
            self.cancelled = True
            self._waiting = ""
            self.finish(self.finish_reason)

    async def take(self, interval_s: float = 0.0) -> str:
        """The next words, at most MAX_DELTA_BYTES of UTF-8; empty when there are no more.

        Those that come before `interval_s` since the last ones are gathered until then, and all until the next tick. A
        model that keeps to the interval itself is not made to wait when it is a little early.
        """
        self._interval_s = interval_s
        while not self._closed and not (self._waiting and (self._rung or not interval_s)):
            self._news.clear()
            if self._waiting:
                self._wake()
            await self._news.wait()
        self._rung = False
        if not self._waiting:
            if self._error:
                raise self._error
            return ""
        text, self._waiting = _cut(self._waiting)
        self._said.append(text)
        self._taken_s = self._loop.time()
        return text

    def _wake(self) -> None:
        """Let `take` look when it is time to."""
        if self._closed or not self._interval_s:
            self._news.set()
        elif not (self._bell or self._rung):
            due_s = now_s = self._loop.time()
            if now_s - self._taken_s < self._interval_s / 2:
                due_s = self._taken_s + self._interval_s
            self._bell = self._loop.call_at(math.ceil(due_s / TICK_S) * TICK_S, self._ring)

    def _ring(self) -> None:
        self._bell = None
        self._rung = True
        self._news.set()

    def _close(self) -> None:
        self._closed = True
        if self._bell:
            self._bell.cancel()
        self._news.set()


def in_deltas(text: str) -> Iterator[str]:
    """`text` in pieces that are as long as an event may be."""
    while text:
        piece, text = _cut(text)
        yield piece


def _cut(text: str) -> tuple[str, str]:
    """`text` in two, the first part as long as an event may be."""
    if len(text) * 4 <= MAX_DELTA_BYTES:  # no character takes more than four bytes
        return text, ""
    # An event begins at a whole character, so only its last one can be cut through.
    first = text.encode()[:MAX_DELTA_BYTES].decode(errors="ignore")
    return first, text[len(first) :]
