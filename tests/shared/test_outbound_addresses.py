"""Which addresses users may name: every spelling of an inside address is refused, and nothing else."""

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.shared.errors import Invalid, Reason
from services.shared.outbound.addresses import Addresses
from services.shared.outbound.url import join, parse
from services.shared.serving.settings import SettingsError

INSIDE = [
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8",
    "224.0.0.0/4", "240.0.0.0/4", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "192.0.0.0/24",
]  # fmt: skip
INSIDE_V6 = [
    "::1/128", "::/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32", "3fff::/20", "100::/64",
    "fd00:ec2::254/128", "2002::/16", "2001::/32", "::/96", "64:ff9b:1::/48", "5f00::/16",
]  # fmt: skip
NOWHERE = Addresses()


def addresses_in(networks: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(networks).flatmap(lambda network: st.ip_addresses(network=network)).map(str)


def refusal(text: str, addresses: Addresses = NOWHERE) -> Reason | None:
    try:
        addresses.check(parse(text))
    except Invalid as error:
        return error.reason
    return None


_FULLWIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
SPELLINGS: list[Callable[[int], str]] = [
    lambda n: str(n),
    lambda n: hex(n),
    lambda n: f"0{n:o}",
    lambda n: f"0X{n:X}",
    lambda n: ".".join(str(part) for part in n.to_bytes(4)),
    lambda n: ".".join(f"0{part:o}" for part in n.to_bytes(4)),
    lambda n: ".".join(hex(part) for part in n.to_bytes(4)),
    lambda n: f"{n >> 24}.{n & 0xFFFFFF}",
    lambda n: f"{hex(n >> 24)}.0{n >> 16 & 0xFF:o}.{n & 0xFFFF}",
    lambda n: ".".join(str(part) for part in n.to_bytes(4)) + ".",
    lambda n: "。".join(str(part) for part in n.to_bytes(4)),
    lambda n: "．".join(str(part) for part in n.to_bytes(4)).translate(_FULLWIDTH),
    lambda n: str(n).translate(str.maketrans("123456789", "①②③④⑤⑥⑦⑧⑨")),
    lambda n: f"[::ffff:{ipaddress.IPv4Address(n)}]",
    lambda n: f"[0:0:0:0:0:FFFF:{n >> 16:x}:{n & 0xFFFF:x}]",
    lambda n: f"[::{ipaddress.IPv4Address(n)}]",
    lambda n: f"[64:ff9b::{ipaddress.IPv4Address(n)}]",
    lambda n: f"[2002:{n >> 16:x}:{n & 0xFFFF:x}::1]",
    lambda n: f"[2001:0:{n >> 16:x}:{n & 0xFFFF:x}:0:0:0:0]",
    lambda n: f"[2001::ffff:{(n ^ 0xFFFFFFFF) >> 16:x}:{(n ^ 0xFFFFFFFF) & 0xFFFF:x}]",
]  # fmt: skip


@given(addresses_in(INSIDE), st.sampled_from(SPELLINGS), st.sampled_from(["http", "HTTPS"]))
@example("169.254.169.254", SPELLINGS[0], "http")
@example("168.63.129.16", SPELLINGS[0], "http")
def test_an_inside_address_is_refused_in_every_spelling(
    address: str, spelling: Callable[[int], str], scheme: str
) -> None:
    number = int(ipaddress.IPv4Address(address))
    assert refusal(f"{scheme}://{spelling(number)}/latest/meta-data") in (
        Reason.ADDRESS_NOT_ALLOWED,
        Reason.URL_INVALID,
    )


@given(addresses_in(INSIDE_V6))
def test_an_inside_address_of_ipv6_is_refused(address: str) -> None:
    assert refusal(f"http://[{address}]/") is Reason.ADDRESS_NOT_ALLOWED
    exploded = ipaddress.IPv6Address(address).exploded.upper()
    assert refusal(f"http://[{exploded}]:80/") is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "[2606:4700::1111]", "[64:ff9b::8.8.8.8]", "134744072"])
def test_an_address_of_the_internet_is_admitted(address: str) -> None:
    assert refusal(f"https://{address}/") is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "LocalHost.", "x.localhost", "ｌocalhost"])
def test_localhost_is_refused_by_name(host: str) -> None:
    assert refusal(f"http://{host}/") is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize("port", [22, 25, 6379, 8080, 65535])
def test_other_ports_are_refused(port: int) -> None:
    assert refusal(f"http://example.com:{port}/") is Reason.ADDRESS_NOT_ALLOWED
    assert refusal(f"http://8.8.8.8:{port}/") is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "http://", "http:///x", "//example.com/", "/x", "example.com", "javascript:alert(1)", "file:///etc/passwd",
        "ftp://example.com/", "gopher://127.0.0.1:6379/_x", "data:text/html,x", "http:example.com", "http:/example.com",
        "http://user@example.com/", "http://user:pass@127.0.0.1/", "http://example.com@127.0.0.1/", "http://@127.0.0.1/",
        "http://example.com\\@127.0.0.1/", "http://127.0.0.1\\.example.com/", "http://example.com:80:80/",
        "http://example.com:x/", "http://example.com:０/", "http://example.com:0/", "http://example.com:65536/",
        "http://[::1", "http://::1/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[127.0.0.1]/",
        "http://%31%32%37.0.0.1/", "http://127.0.0.1%00.example.com/", "http://127.0.0.1 .example.com/",
        "http://exa\tmple.com/", "http://exa\nmple.com/", "http://a..b/", "http://.example.com/", "http://example..",
        "http://1.2.3.4.5/", "http://256.0.0.1/", "http://0x100000000/", "http://-a.com/",
        "http://xn--/", "http://\u202e.com/", "http://\u200b/", "http://\ud83d\ude00..com/",
        "http://" + "a" * 64 + ".com/", "http://example.com/" + "a" * 2048,
        "http://\u0000/", "http://example.com\u0000/", "ht\ttp://example.com/",
        "http://①②⑦.0.0.1.1.1/", "http://example.com\u2044x/", "http://example.com\uff0f@127.0.0.1/",
        "http://example.com\uff20127.0.0.1/", "http://example.com\u2100/",
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_no_address(text: str) -> None:
    assert refusal(text) is Reason.URL_INVALID


@given(st.text())
@example("[")
@example("//[")
def test_any_text_is_read_or_refused(text: str) -> None:
    for spelt in (text, f"http://{text}", f"http://example.com/{text}", f"http://example.com:{text}"):
        try:
            url = parse(spelt)
        except Invalid as error:
            assert error.reason is Reason.URL_INVALID
        else:
            assert str(url).isascii()
            assert str(url).isprintable()
            assert parse(str(url)) == url
    try:
        join(parse("http://example.com/a/b"), text)
    except Invalid as error:
        assert error.reason is Reason.URL_INVALID


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("HTTP://EXAMPLE.com.:80", "http://example.com/"),
        ("https://example.com:443/a/./b/../c#top", "https://example.com/a/c"),
        ("http://example.com:8080/%7euser/%2f%c3%bc", "http://example.com:8080/~user/%2F%C3%BC"),
        ("http://example.com/a b?q=ü&r=%20", "http://example.com/a%20b?q=%C3%BC&r=%20"),
        ("http://example.com?", "http://example.com/"),
        ("http://example.com/%2e%2E/x/..", "http://example.com/"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        (" http://example.com/%\n", "http://example.com/%25"),
        ("http://[2606:4700:0:0::1111]/", "http://[2606:4700::1111]/"),
    ],
)
def test_an_address_has_one_spelling(text: str, normal: str) -> None:
    assert str(parse(text)) == normal


def test_what_an_operator_names_is_admitted_and_nothing_beside_it() -> None:
    addresses = Addresses(["127.0.0.1:8081", "10.1.0.0/16", "[fd00::1]:8080", "fd01::/16"])
    for text in (
        "http://127.0.0.1:8081/", "http://localhost:8081/", "http://0x7f.1:8081/", "http://[::ffff:127.0.0.1]:8081/",
        "http://10.1.2.3/", "https://10.1.2.3/", "http://[fd00::1]:8080/", "http://[fd01::7]/", "http://wiki:8081/",
    ):  # fmt: skip
        assert refusal(text, addresses) is None, text
    for text in (
        "http://127.0.0.1/", "http://127.0.0.1:8082/", "http://127.0.0.2:8081/", "http://10.1.2.3:8081/",
        "http://10.2.0.1/", "http://[fd00::1]/", "http://[fd00::2]:8080/", "http://8.8.8.8:8081/", "http://wiki:8082/",
        "http://169.254.169.254/",
    ):  # fmt: skip
        assert refusal(text, addresses) is Reason.ADDRESS_NOT_ALLOWED, text


@pytest.mark.parametrize("entry", ["localhost", "localhost:80", "10.1.0.0/33", "10.1.2.3/16", "x", "10.0.0.1:", "[::1"])
def test_a_setting_that_names_no_address_stops_the_start(entry: str) -> None:
    with pytest.raises(SettingsError):
        Addresses([entry])
