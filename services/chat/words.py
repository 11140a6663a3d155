"""The words on their way from the model to the log.

The model's pump puts them in; the writer takes out whatever has come since its last append. So a lone stream passes
every token on at once, and a stream whose log is slow shares events instead of queueing them. What waits here is
bounded by the longest answer.
"""

import asyncio

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
        self._news.set()

    def finish(self, reason: FinishReason) -> None:
        """The model has said everything."""
        self.finish_reason = reason
        self._closed = True
        self._news.set()

    def fail(self, error: Exception) -> None:
        """The model can't go on: `take` raises this after the words that came before it."""
        if not self._closed:
            self._error = error
            self._closed = True
            self._news.set()

    def cancel(self) -> None:
        """Drop what waits, unless the model has finished."""
        if not self._closed:
            self.cancelled = True
            self._waiting = ""
            self.finish(self.finish_reason)

    async def take(self) -> str:
        """The next words, at most MAX_DELTA_BYTES of UTF-8; empty when there are no more."""
        while not self._waiting:
            if self._error:
                raise self._error
            if self._closed:
                return ""
            self._news.clear()
            await self._news.wait()
        text, self._waiting = _cut(self._waiting)
        self._said.append(text)
        return text


def _cut(text: str) -> tuple[str, str]:
    """`text` in two, the first part as long as an event may be."""
    if len(text) * 4 <= MAX_DELTA_BYTES:  # no character takes more than four bytes
        return text, ""
    # An event begins at a whole character, so only its last one can be cut through.
    first = text.encode()[:MAX_DELTA_BYTES].decode(errors="ignore")
    return first, text[len(first) :]
