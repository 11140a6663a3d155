"""A chat model without weights, behind the contract of ../../turn.py: what it says, and when, is known beforehand.

A line `tokens=N tokens_per_s=R` in the last message of the user asks for exactly N numbered words, whatever max_tokens
says, R a second, or as fast as they go for R=0. Any other text comes back word by word, 50 a second. Word n is due at
start + (n-1)/R, however late those before it were. The first goes out at once; one thread serves all streams after it:
it sleeps until the next word of any of them is due.
"""

import heapq
import itertools
import math
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from turn import Refused, Turn

ORDER = re.compile(r"^\s*tokens=(\d{1,6}) tokens_per_s=(\d{1,6}(?:\.\d+)?)\s*$", re.MULTILINE)
ECHO_TOKENS_PER_S = 50.0
CANCEL_POLL_S = 0.25
TICK_S = 0.02


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._due: list[tuple[float, int, _Stream]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def execute(self, requests: list) -> None:
        for request in requests:
            try:
                stream = _Stream(Turn(request, CANCEL_POLL_S))
            except Refused:
                continue
            # The first word is due now: to wake the other thread for it would cost as much as the word.
            if stream.speak():
                with self._changed:
                    self._push(stream)
                    self._changed.notify()

    def _push(self, stream: "_Stream") -> None:
        heapq.heappush(self._due, (stream.due_s(), next(self._order), stream))

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._due or (wait_s := self._due[0][0] - time.monotonic()) > 0:
                    self._changed.wait(wait_s if self._due else None)
                _, _, stream = heapq.heappop(self._due)
            if stream.speak():
                with self._changed:
                    self._push(stream)


class _Stream:
    """The words of one turn, and when they are due."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._start_s = time.monotonic()
        self._prompt_tokens = sum(len(message["content"].split()) for message in turn.messages)
        self._words, self._total, self._per_s, self._finish_reason = _script(turn)
        self._sent = 0

    def due_s(self) -> float:
        """By the clock. Streams with an interval speak in common ticks, as those of a model that decodes in batches."""
        due_s = self._start_s + self._offset_s()
        return math.ceil(due_s / TICK_S) * TICK_S if self._turn.interval_s and self._sent else due_s

    def speak(self) -> bool:
        """Send what is due. False when that was the end."""
        if self._turn.is_cancelled():
            self._turn.end()
            return False
        upto = self._due_words()
        text = "".join(itertools.islice(self._words, upto - self._sent))
        self._sent = upto
        ended = upto == self._total
        self._turn.send(
            text,
            completion_tokens=upto,
            prompt_tokens=self._prompt_tokens,
            finish_reason=self._finish_reason if ended else "",
        )
        return not ended

    def _offset_s(self) -> float:
        """Of the next response from the start; with an interval, the end of the one in which the next word falls."""
        offset_s = self._sent / self._per_s if self._per_s else 0.0
        interval_s = self._turn.interval_s
        return math.ceil(offset_s / interval_s) * interval_s if interval_s else offset_s

    def _due_words(self) -> int:
        if not self._turn.interval_s:
            due = self._sent + 1
        elif not self._per_s:
            due = self._total
        else:
            due = math.floor(self._offset_s() * self._per_s + 1e-6) + 1
        return min(due, self._total)


def _script(turn: Turn) -> tuple[Iterator[str], int, float, str]:
    """The words still to be said, their number, their rate (0: no pause between them), and why they end."""
    question = next(message["content"] for message in reversed(turn.messages) if message["role"] == "user")
    said = len(turn.prefill.split())
    if order := ORDER.search(question):
        words = (str(n) if n == 1 else f" {n}" for n in itertools.count(said + 1))
        return words, max(0, int(order[1]) - said), float(order[2]), "stop"
    pieces = re.findall(r"\s*\S+", question)[said:]
    reason = "stop" if len(pieces) <= turn.max_tokens else "length"
    return iter(pieces), min(len(pieces), turn.max_tokens), ECHO_TOKENS_PER_S, reason
