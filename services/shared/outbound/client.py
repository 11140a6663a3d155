"""Asks addresses that users name. A name is looked up once; what is checked is what is connected to.

The check stands below the HTTP client, where a connection is opened: no redirect, no second look-up and no spelling
comes past it. Proxies of the environment are not used: they would connect for us, unchecked.
"""

import asyncio
import ipaddress
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import httpcore

from services.shared.outbound.addresses import Address, Addresses, not_allowed
from services.shared.outbound.url import Url, join

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
_CONNECT_S = 5.0
_IDLE_S = 15.0
_CONNECTIONS = 64
_PIECE_BYTES = 64 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)


class Unreachable(Exception):
    """No answer, or one that can't be read; the message tells a person why."""


class TooLarge(Exception):
    """The answer holds more than was allowed."""


class Answer:
    """What a server answered; its body is read while it arrives."""

    def __init__(self, url: Url, response: httpcore.Response) -> None:
        self.url = url
        self.status: int = response.status
        self._headers = [(_text(name).lower(), _text(value)) for name, value in response.headers]
        self._response = response

    def values(self, header: str) -> list[str]:
        """Of each header of this name, which is in lower case."""
        return [value for name, value in self._headers if name == header]

    @property
    def redirect(self) -> str | None:
        """Where it sends the client instead, as it says it."""
        return next(iter(self.values("location")), None) if self.status in _REDIRECTS else None

    async def body(self, most_bytes: int) -> AsyncIterator[bytes]:
        """The content, unpacked. Raises TooLarge, Unreachable."""
        packed = ", ".join(self.values("content-encoding")).strip().lower()
        if packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Unreachable("The server packs its answer in a way that was not asked for.")
        length = next(iter(self.values("content-length")), "")
        if length.isdecimal() and len(length) < 20 and int(length) > most_bytes:
            raise TooLarge
        pieces = self._response.aiter_stream()
        size_bytes = 0
        async for piece in pieces if packed in ("", "identity") else _unpacked(pieces):
            size_bytes += len(piece)
            if size_bytes > most_bytes:
                raise TooLarge
            yield piece


class Outbound:
    """An HTTP client for addresses that users name. Open it with `async with`."""

    def __init__(
        self, addresses: Addresses, *, tls: ssl.SSLContext | None = None, resolve: Resolve | None = None
    ) -> None:
        """`tls` verifies servers, by default with the authorities of the system (SSL_CERT_FILE adds others)."""
        self._addresses = addresses
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS // 2,
            keepalive_expiry=_IDLE_S,
            network_backend=_CheckedNetwork(addresses, resolve or _resolved),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        *,
        within_s: float,
        content: bytes | None = None,
        redirects: int = 0,
    ) -> AsyncIterator[Answer]:
        """The answer, its body unread; all of it must be over `within_s`. Raises Invalid for an address that may not be
        asked, and Unreachable, also while the body is read."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    async with self._asked(method, url, headers, content) as answer:
                        if answer.redirect is None or redirects == 0:
                            yield answer
                            return
                        redirects, url = redirects - 1, join(url, answer.redirect)
        except TimeoutError as error:
            raise Unreachable(f"The server was not done within {within_s:.0f} seconds.") from error

    @asynccontextmanager
    async def _asked(
        self, method: str, url: Url, headers: Mapping[str, str], content: bytes | None
    ) -> AsyncIterator[Answer]:
        self._addresses.check(url)
        target = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        sent = [("Host", url.authority), ("Accept-Encoding", "gzip, deflate"), *headers.items()]
        timeout = {"connect": _CONNECT_S, "pool": _CONNECT_S}
        try:
            async with self._pool.stream(
                method, target, headers=sent, content=content, extensions={"timeout": timeout}
            ) as response:
                yield Answer(url, response)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            raise Unreachable(_why_not_connected(error)) from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise Unreachable("The server broke its answer off, or sent something that is no HTTP.") from error


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections to admitted addresses only."""

    def __init__(self, addresses: Addresses, resolve: Resolve) -> None:
        self._addresses = addresses
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises Invalid if one of the addresses of the host is not admitted: a name for both inside and outside is
        none to trust."""
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise httpcore.ConnectError(f"the name {host} is not known") from error
        if not all(self._addresses.admits(address, port) for address in found):
            raise not_allowed(host, port)
        refused: Exception = httpcore.ConnectError(f"the name {host} is not known")
        for address in found:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refused = error
        raise refused

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.UnsupportedProtocol("sockets of this machine are not for users")

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


async def _resolved(host: str, port: int) -> list[Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0])) for entry in found))


async def _unpacked(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """gzip or zlib, a bounded piece at a time: a bomb is as slow to unpack here as its reader."""
    unpacking = zlib.decompressobj(wbits=47)
    try:
        async for piece in pieces:
            while piece and not unpacking.eof:
                unpacked = unpacking.decompress(piece, _PIECE_BYTES)
                piece = unpacking.unconsumed_tail
                if unpacked:
                    yield unpacked
    except zlib.error as error:
        raise Unreachable("The server packed its answer in a way that can't be unpacked.") from error
    if not unpacking.eof:
        raise Unreachable("The server broke its answer off.")


def _text(header: bytes) -> str:
    """Servers that put more than ASCII there mostly mean UTF-8."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


def _why_not_connected(error: Exception) -> str:
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The server's certificate is not right for its name: {cause.verify_message}."
        if isinstance(cause, ssl.SSLError):
            return "The server speaks no TLS that can be understood."
        cause = cause.__cause__ or cause.__context__
    said = str(error)
    return f"The server can't be reached: {said}." if "name" in said else "The server can't be reached."
