"""Work that runs beside the calls of a service, from its start to its stop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_log = logging.getLogger("parley.background")
_CANCEL_AGAIN_S = 0.2


@asynccontextmanager
async def background(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work` as a task while the body runs, then cancel it and wait until it has cleaned up.

    Work that fails is logged and not started again: it handles by itself what it expects to go wrong.
    """
    task = asyncio.create_task(_logged(work))
    try:
        yield
    finally:
        # More than once, because asyncio.wait_for of Python 3.11 loses a cancellation that comes just as what it waits
        # for ends; the NATS client uses it in an endless loop.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)


async def _logged(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:
        _log.exception("work in the background failed")
