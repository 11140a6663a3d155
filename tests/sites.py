"""A web site of a test: a real HTTP server on a port of its own, which may answer as badly as a test wants."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Headers = Mapping[str, str]
Raw = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Writes a whole answer, head included."""


@dataclass
class Answer:
    """What a path answers; with an etag, 304 to who knows it."""

    body: bytes | str = b""
    status: int = 200
    headers: Headers = field(default_factory=lambda: {"Content-Type": "text/html"})
    etag: str = ""


@dataclass
class Site:
    """`pages` maps a path, with its query, to its answer; all else is 404."""

    pages: dict[str, Answer | Raw] = field(default_factory=dict)
    asked: list[tuple[str, Headers]] = field(default_factory=list)
    port: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Closed, answers wait once `free` of them were given, except robots.txt."""
    free: int = 0
    halted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order, without robots.txt."""
        return [path for path, _ in self.asked if path != "/robots.txt"]

    def page(self, path: str, text: str, *links: str, head: str = "", **changed: object) -> None:
        """An HTML page with a text and links."""
        anchors = "".join(f'<a href="{link}">{number}</a>' for number, link in enumerate(links))
        title = f"<title>{text.split('.')[0]}</title>"
        body = f"<!doctype html><html><head>{title}{head}</head><body><p>{text}</p>{anchors}</body></html>"
        self.pages[path] = Answer(body, **changed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            self.asked.append((path, headers))
            if path != "/robots.txt" and not self.gate.is_set():
                if self.free <= 0:
                    self.halted.set()
                    await self.gate.wait()
                self.free -= 1
            answer = self.pages.get(path, Answer("Nothing here.", 404))
            if isinstance(answer, Answer):
                writer.write(_bytes(answer, headers))
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _bytes(answer: Answer, asked: Headers) -> bytes:
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    status, headers = answer.status, dict(answer.headers)
    if answer.etag:
        headers["ETag"] = answer.etag
        if asked.get("if-none-match") == answer.etag:
            status, body = 304, b""
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def head(**headers: str) -> bytes:
    """The head of a 200 answer, its body without an announced end."""
    lines = ["HTTP/1.1 200 OK", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


@asynccontextmanager
async def a_site(tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    site.gate.set()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        site.gate.set()
        server.close()
