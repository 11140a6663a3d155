"""The client for addresses that users name, on real servers: what is checked is what is connected to."""

import asyncio
import gzip
import ipaddress
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from services.shared.errors import Invalid, Reason
from services.shared.outbound.addresses import Address, Addresses
from services.shared.outbound.client import Outbound, TooLarge, Unreachable
from services.shared.outbound.url import parse
from stack import authority
from stack.mesh import Mesh, Options
from tests.sites import Answer, Site, a_site, head


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with a_site() as site:
        yield site


def resolving(*answers: Sequence[str]) -> Callable[[str, int], object]:
    """Another answer each time, the last one from then on; `asked` lists the names."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        resolve.asked.append(host)
        return [ipaddress.ip_address(address) for address in (left.pop(0) if len(left) > 1 else left[0])]

    resolve.asked = []
    return resolve


async def body_of(outbound: Outbound, url: str, most_bytes: int = 10**6, within_s: float = 10, **how: object) -> bytes:
    async with outbound.request("GET", parse(url), {}, within_s=within_s, **how) as answer:
        return b"".join([piece async for piece in answer.body(most_bytes)])


async def reason_of(outbound: Outbound, url: str, **how: object) -> Reason:
    with pytest.raises(Invalid) as refused:
        await body_of(outbound, url, **how)
    return refused.value.reason


async def test_a_page_is_fetched_from_the_address_that_was_checked(site: Site) -> None:
    site.page("/", "Welcome.")
    resolve = resolving(["127.0.0.1"], ["10.0.0.1"])
    async with Outbound(Addresses([f"127.0.0.1:{site.port}"]), resolve=resolve) as outbound:
        assert b"Welcome." in await body_of(outbound, f"http://site.example:{site.port}/")
    assert resolve.asked == ["site.example"]
    assert site.asked[0][1]["host"] == f"site.example:{site.port}"


async def test_a_name_that_leads_inside_is_refused_also_the_second_time(site: Site) -> None:
    """DNS rebinding: first an admitted answer, then another one."""
    site.page("/", "Welcome.")
    resolve = resolving(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["::1"], ["169.254.169.254"])
    async with Outbound(Addresses([f"127.0.0.1:{site.port}"]), resolve=resolve) as outbound:
        url = f"http://site.example:{site.port}/"
        await body_of(outbound, url)
        for _ in range(4):
            assert await reason_of(outbound, url) is Reason.ADDRESS_NOT_ALLOWED
    assert len(site.asked) == 1


async def test_every_redirect_is_checked(site: Site) -> None:
    async with a_site() as inside:
        inside.page("/", "Secret.")
        targets = [inside.origin, f"http://localhost:{inside.port}", "http://169.254.169.254/", "file:///etc/passwd"]
        targets += [f"http://rebound.example:{inside.port}/", f"//127.0.0.1:{inside.port}/", "http://[::1]/"]
        for number, target in enumerate(targets):
            site.pages[f"/{number}"] = Answer(status=302, headers={"Location": target})
        resolve = resolving(["127.0.0.1"])
        async with Outbound(Addresses([f"127.0.0.1:{site.port}"]), resolve=resolve) as outbound:
            for number, target in enumerate(targets):
                reason = await reason_of(outbound, f"http://127.0.0.1:{site.port}/{number}", redirects=5)
                wanted = Reason.URL_INVALID if target.startswith("file") else Reason.ADDRESS_NOT_ALLOWED
                assert reason is wanted, target
        assert inside.asked == []


async def test_redirects_are_followed_as_often_as_is_said(site: Site) -> None:
    for number in range(3):
        site.pages[f"/{number}"] = Answer(status=301, headers={"Location": f"/{number + 1}"})
    site.page("/3", "Here.")
    async with Outbound(Addresses([f"127.0.0.1:{site.port}"])) as outbound:
        assert b"Here." in await body_of(outbound, f"{site.origin}/0", redirects=3)
        async with outbound.request("GET", parse(f"{site.origin}/0"), {}, within_s=10, redirects=2) as answer:
            assert (answer.status, answer.redirect, answer.url.path) == (301, "/3", "/2")


async def test_a_certificate_must_name_the_host(tmp_path: Path) -> None:
    mesh = Mesh(data_dir=tmp_path, options=Options(), ports={})
    authority.ensure(mesh)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(mesh.cert_file("chat"), mesh.key_file("chat"))
    trusting = ssl.create_default_context(cafile=str(mesh.ca_file))
    async with a_site(serving) as site:
        site.page("/", "Welcome.")
        allowed, resolve = Addresses([f"127.0.0.1:{site.port}"]), resolving(["127.0.0.1"])
        async with Outbound(allowed, tls=trusting, resolve=resolve) as outbound:
            assert b"Welcome." in await body_of(outbound, f"https://chat:{site.port}/")
            with pytest.raises(Unreachable, match="certificate"):
                await body_of(outbound, f"https://session:{site.port}/")
        async with Outbound(allowed, resolve=resolve) as outbound:
            with pytest.raises(Unreachable, match="certificate"):
                await body_of(outbound, f"https://chat:{site.port}/")


async def test_packed_answers_are_unpacked_within_their_bound(site: Site) -> None:
    site.pages["/gzip"] = Answer(gzip.compress(b"x" * 1000), headers={"Content-Encoding": "gzip"})
    site.pages["/deflate"] = Answer(zlib.compress(b"x" * 1000), headers={"Content-Encoding": "deflate"})
    site.pages["/bomb"] = Answer(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})
    site.pages["/cut"] = Answer(gzip.compress(b"x" * 1000)[:-9], headers={"Content-Encoding": "gzip"})
    site.pages["/none"] = Answer(b"no gzip", headers={"Content-Encoding": "gzip"})
    site.pages["/other"] = Answer(b"?", headers={"Content-Encoding": "br"})
    async with Outbound(Addresses([f"127.0.0.1:{site.port}"])) as outbound:
        assert await body_of(outbound, f"{site.origin}/gzip") == b"x" * 1000
        assert await body_of(outbound, f"{site.origin}/deflate") == b"x" * 1000
        with pytest.raises(TooLarge):
            await body_of(outbound, f"{site.origin}/bomb")
        for path in ("/cut", "/none", "/other"):
            with pytest.raises(Unreachable):
                await body_of(outbound, site.origin + path)


async def test_a_server_that_never_ends_is_left(site: Site) -> None:
    ended = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(head(Content_Type="text/html"))
        try:
            while True:
                writer.write(b"more " * 10_000)
                await writer.drain()
        finally:
            ended.set()

    async def drop_by_drop(writer: asyncio.StreamWriter) -> None:
        for byte in head() + b"x" * 10_000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async def rubbish(writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()

    site.pages |= {"/endless": endless, "/slow": drop_by_drop, "/rubbish": rubbish}
    async with Outbound(Addresses([f"127.0.0.1:{site.port}"])) as outbound:
        with pytest.raises(TooLarge):
            await body_of(outbound, f"{site.origin}/endless")
        async with asyncio.timeout(20):
            await ended.wait()
        with pytest.raises(Unreachable, match="within"):
            await body_of(outbound, f"{site.origin}/slow", within_s=0.3)
        with pytest.raises(Unreachable):
            await body_of(outbound, f"{site.origin}/rubbish")


async def test_no_answer_is_told_as_such() -> None:
    async with a_site() as closed:
        pass
    async with Outbound(Addresses([f"127.0.0.1:{closed.port}"])) as outbound:
        with pytest.raises(Unreachable):
            await body_of(outbound, f"{closed.origin}/")

    async def unknown(host: str, port: int) -> Sequence[Address]:
        raise OSError(-2, "Name or service not known")

    async with Outbound(Addresses(), resolve=unknown) as outbound:
        with pytest.raises(Unreachable, match="name nowhere"):
            await body_of(outbound, "http://nowhere.example/")


async def test_proxies_of_the_environment_are_not_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_site() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("http_proxy", proxy.origin)
        monkeypatch.setenv("ALL_PROXY", proxy.origin)
        site.page("/", "Welcome.")
        async with Outbound(Addresses([f"127.0.0.1:{site.port}"])) as outbound:
            assert b"Welcome." in await body_of(outbound, f"{site.origin}/")
        assert proxy.asked == []
