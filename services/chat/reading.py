"""The calls that read turns in this process, and how many of them a user may have."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID

from services.chat.live import LiveTurn
from services.chat.turn import Asker, Entry
from services.shared.errors import Exhausted, Reason

_RETRY_AFTER_S = 5.0


class Reading:
    """One call that reads a turn."""

    def __init__(self, live: LiveTurn, after: int, asker: Asker, readings: "Readings") -> None:
        self.live = live
        self._after = after
        self._asker = asker
        self._readings = readings

    def follow(self) -> AsyncIterator[Entry]:
        """See LiveTurn.follow."""
        return self.live.follow(self._after)

    def leave(self) -> None:
        """The call has ended."""
        self.live.leave()
        self._readings.end(self._asker)


class Readings:
    """Counts the calls of each user."""

    def __init__(self, limit: int) -> None:
        """`limit` holds for one user."""
        self._limit = limit
        self._counts: Counter[tuple[UUID, UUID]] = Counter()

    def check(self, asker: Asker) -> None:
        """Raise Exhausted for a user who has as many as allowed."""
        if self._counts[asker.tenant_id, asker.user_id] >= self._limit:
            message = f"You have {self._limit} open streams: end one."
            raise Exhausted(Reason.TOO_MANY_READERS, message, retry_after_s=_RETRY_AFTER_S, limit=self._limit)

    @contextmanager
    def arriving(self, asker: Asker) -> Iterator[None]:
        """Count a call that still waits to `begin`. Raises Exhausted."""
        self.check(asker)
        self._counts[asker.tenant_id, asker.user_id] += 1
        try:
            yield
        finally:
            self.end(asker)

    def begin(self, live: LiveTurn, after: int, asker: Asker) -> Reading:
        """Read a turn after a number; the caller must `leave` it."""
        live.join()
        self._counts[asker.tenant_id, asker.user_id] += 1
        return Reading(live, after, asker, self)

    def end(self, asker: Asker) -> None:
        """One call less."""
        user = asker.tenant_id, asker.user_id
        self._counts[user] -= 1
        if not self._counts[user]:
            del self._counts[user]
