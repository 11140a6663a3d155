"""Works off a durable consumer: each event at least once, acknowledged after its effect is committed.

An effect happens exactly once because the handler writes the event's id into `inbox` in the statement that makes
the effect. A handler that raises gets the event again, later each time; after MAX_DELIVERIES tries `give_up` is
called and the event is parked, so that it blocks nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from services.shared.background import background
from services.shared.events.bus import Bus
from services.shared.events.streams import DURABLES, MAX_DELIVERIES, STREAM

_log = logging.getLogger("parley.events")
_RETRY_S = 1.0


@dataclass(frozen=True)
class Event:
    """A fact from another service, or from this one."""

    id: UUID
    type: str  # full proto name
    tenant_id: UUID
    time: datetime  # when it became true
    payload: bytes


def _doubling(deliveries: int) -> float:
    return 2.0**deliveries


class Consumer:
    """Hands each event of a durable consumer to `handle` while `running`, `parallel` events at a time.

    `retry_delay_s` says, by how often the event came, how long it waits before it comes again. `fetch_wait_s` is how
    long a request for an event stays open at NATS; one that was lost in a restart of NATS is repeated after it.
    """

    def __init__(
        self,
        bus: Bus,
        durable: str,
        handle: Callable[[Event], Awaitable[None]],
        give_up: Callable[[Event], Awaitable[None]],
        *,
        parallel: int = 1,
        retry_delay_s: Callable[[int], float] = _doubling,
        fetch_wait_s: float = 5.0,
    ) -> None:
        self._bus = bus
        self._durable = next(entry for entry in DURABLES if entry.name == durable)
        self._handle = handle
        self._give_up = give_up
        self._parallel = parallel
        self._retry_delay_s = retry_delay_s
        self._fetch_wait_s = fetch_wait_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Works while entered."""
        async with AsyncExitStack() as workers:
            for _ in range(self._parallel):
                await workers.enter_async_context(background(self._run))
            yield

    async def _run(self) -> None:
        while True:
            try:
                stream = await self._bus.stream()
                pull = await stream.pull_subscribe_bind(self._durable.name, stream=STREAM)
                try:
                    await self._work_off(pull)
                finally:
                    await pull.unsubscribe()
            except Exception as error:  # NATS away, or an event that can't be given up yet: it comes again
                facts = {"durable": self._durable.name, "error": repr(error)}
                _log.warning("the consumer waits", extra={"facts": facts})
                await asyncio.sleep(_RETRY_S)

    async def _work_off(self, pull: JetStreamContext.PullSubscription) -> None:
        while True:
            try:
                messages = await pull.fetch(1, timeout=self._fetch_wait_s)
            except nats.errors.TimeoutError:
                continue
            for message in messages:
                await self._take(message)

    async def _take(self, message: Msg) -> None:
        try:
            event = _event(message)
        except (KeyError, ValueError) as error:  # not written by a relay: no try will make it readable
            _log.error("not an event", extra={"facts": {"subject": message.subject, "error": repr(error)}})
            await message.term()
            return
        deliveries = message.metadata.num_delivered
        heartbeat = asyncio.create_task(self._keep(message))
        try:
            try:
                await self._handle(event)
            except Exception:  # whatever broke: the event comes again or is parked
                facts = {"event_id": event.id, "event_type": event.type, "delivery": deliveries}
                _log.exception("an event was not handled", extra={"facts": facts})
                if deliveries < MAX_DELIVERIES:
                    await message.nak(delay=self._retry_delay_s(deliveries))
                    return
                await self._give_up(event)
            await message.ack()
        finally:
            heartbeat.cancel()

    async def _keep(self, message: Msg) -> None:
        while True:
            await asyncio.sleep(self._durable.ack_wait_s / 3)
            await message.in_progress()


def _event(message: Msg) -> Event:
    headers = message.headers or {}
    return Event(
        id=UUID(headers["ce-id"]),
        type=headers["ce-type"],
        tenant_id=UUID(headers["parley-tenant"]),
        time=datetime.fromisoformat(headers["ce-time"]),
        payload=message.data,
    )
