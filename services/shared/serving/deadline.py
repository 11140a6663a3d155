"""The deadline of the running call, so that everything done for it can be given less time than it has."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import grpc

from services.shared.errors import DeadlineExceeded, Reason

DEFAULT_UNARY_S = 10.0
_REPORT_S = 0.020  # kept back, so that the answer "too late" still reaches the caller
_LEAST_S = 0.050  # with less than this left nothing useful can be done
_ends_at_s: ContextVar[float | None] = ContextVar("deadline", default=None)


@asynccontextmanager
async def enforced(context: grpc.aio.ServicerContext, longest_s: float) -> AsyncIterator[None]:
    """Run the body within the caller's deadline, at most `longest_s`; raise DeadlineExceeded when it ends."""
    left_s = context.time_remaining()
    left_s = longest_s if left_s is None else min(left_s, longest_s)
    if left_s < _LEAST_S:
        raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "The deadline left too little time to begin.")
    _ends_at_s.set(time.monotonic() + left_s - _REPORT_S)  # each call runs in a context of its own
    limit = asyncio.timeout(left_s - _REPORT_S)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "The call took longer than its deadline.") from error


def within(limit_s: float) -> float:
    """Seconds that a call made now may take: `limit_s`, or less where the running call ends sooner."""
    ends_at_s = _ends_at_s.get()
    return limit_s if ends_at_s is None else max(0.001, min(limit_s, ends_at_s - time.monotonic() - _REPORT_S))
