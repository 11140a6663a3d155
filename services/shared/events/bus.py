"""The connection to NATS. It never stops a service: it connects in the background and again after each loss."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.shared.background import background

_log = logging.getLogger("parley.events")
_RETRY_S = 1.0


class Bus:
    """NATS for one service, whose certificate and name it uses; `stream()` waits until NATS is there."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, name: str) -> None:
        self._url = url
        self._tls = tls
        self._name = name
        self._client: Client | None = None
        self._connected = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connects, and stays connected, while entered."""
        async with background(self._connect):
            yield
        if self._client:
            await self._client.close()

    async def stream(self) -> JetStreamContext:
        """JetStream, once connected."""
        await self._connected.wait()
        assert self._client
        return self._client.jetstream(timeout=5)

    async def probe(self) -> None:
        """Raise unless NATS lets this service in now."""
        client = await self._open(allow_reconnect=False)
        await client.close()

    async def _connect(self) -> None:
        while True:
            try:
                self._client = await self._open(
                    max_reconnect_attempts=-1, reconnect_time_wait=_RETRY_S, allow_reconnect=True
                )
            except (OSError, nats.errors.Error, TimeoutError) as error:
                _log.warning("NATS can't be reached", extra={"facts": {"error": repr(error)}})
                await asyncio.sleep(_RETRY_S)
            else:
                self._connected.set()
                return

    async def _open(self, **options: Any) -> Client:
        return await nats.connect(
            self._url,
            tls=self._tls,
            tls_hostname="nats" if self._tls else None,
            name=self._name,
            inbox_prefix=f"_INBOX.{self._name}".encode(),
            error_cb=_report,
            **options,
        )


async def _report(error: Exception) -> None:
    _log.warning("NATS error", extra={"facts": {"error": repr(error)}})
