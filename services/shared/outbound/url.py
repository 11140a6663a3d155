"""Addresses of the web in one spelling each, so that what is checked is what is asked.

Browsers read many spellings of one host: 2130706433, 0x7f.1 and fullwidth digits are all 127.0.0.1. Here a host ends
as an IP address in its usual form or as a name in ASCII; whatever could be read in two ways is refused.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, urljoin

import idna

from services.shared.errors import Invalid, Reason

MAX_CHARACTERS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_V6 = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]*))?")
_NAMED = re.compile(r"([^:\[\]]+)(?::([0-9]*))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_IN_PATH = "!$&'()*+,;=:@/%"


@dataclass(frozen=True)
class Url:
    """An address in its normal spelling. `host` is an IP address without brackets or a lower-case name in ASCII."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query, percent-encoded."""

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and, unless it is the usual one, port: what the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def site(self) -> str:
        """Host, and port if it is none of the usual two: http and https are one site."""
        return self.authority if self.port not in DEFAULT_PORTS.values() else self.host

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


def parse(text: str) -> Url:
    """The address that `text` spells. Raises Invalid."""
    text = text.strip(" \t\r\n\f")
    if not 0 < len(text) <= MAX_CHARACTERS:
        _refuse(f"it must have 1 to {MAX_CHARACTERS} characters")
    found = _URL.fullmatch(text)
    if found is None:
        _refuse("it must begin with http:// or https://")
    scheme, authority, path, query = found[1].lower(), found[2], found[3], found[4] or ""
    host, port = _host_and_port(authority)
    if "\\" in path:
        _refuse("it holds a backslash")
    target = _without_dots(_encoded(path) or "/") + (_encoded(query, "?") if len(query) > 1 else "")
    url = Url(scheme, host, port or DEFAULT_PORTS[scheme], target)
    if len(str(url)) > MAX_CHARACTERS:
        _refuse(f"it must have 1 to {MAX_CHARACTERS} characters")
    return url


def join(base: Url, reference: str) -> Url:
    """The address that `reference` means on the page at `base`. Raises Invalid."""
    reference = "".join(character for character in reference.strip() if character not in "\t\r\n")
    try:
        return parse(urljoin(str(base), reference))
    except ValueError as error:
        raise _refusal("it can't be read") from error


def _host_and_port(authority: str) -> tuple[str, int | None]:
    if "@" in authority:
        _refuse("it names a user")
    if authority.startswith("["):
        found = _V6.fullmatch(authority)
        try:
            host = str(ipaddress.IPv6Address(found[1])) if found else ""
        except ValueError:
            host = ""
    else:
        found = _NAMED.fullmatch(authority)
        host = _host(found[1]) if found else ""
    if not found or not host:
        _refuse("its host can't be read")
    if not found[2]:
        return host, None
    port = int(found[2]) if len(found[2]) <= 5 else 0
    if not 1 <= port <= 65535:
        _refuse("its port is none")
    return host, port


def _host(text: str) -> str:
    """The normal spelling of a host that is no IPv6 address; empty if it has none."""
    try:
        mapped = text.lower() if text.isascii() else idna.uts46_remap(text, std3_rules=False)
        name = mapped if mapped.isascii() else idna.encode(mapped).decode()
    except UnicodeError:  # idna's own errors too
        return ""
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        return ""
    return _ipv4(labels) if _NUMBER.fullmatch(labels[-1]) else name


def _ipv4(labels: list[str]) -> str:
    """What inet_aton makes of it: decimal, octal and hexadecimal, the last number fills what is left."""
    if len(labels) > 4 or not all(map(_NUMBER.fullmatch, labels)):
        return ""
    try:
        *first, last = (_number(label) for label in labels)
    except ValueError:
        return ""
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        return ""
    return str(ipaddress.IPv4Address(sum(number << 8 * (3 - at) for at, number in enumerate(first)) + last))


def _number(label: str) -> int:
    if len(label) > 16:
        raise ValueError(label)
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if len(label) > 1 and label.startswith("0") else 10)


def _encoded(text: str, more: str = "") -> str:
    """Percent-encoded in one way: what need not be is not, and digits are upper case."""
    return _ESCAPE.sub(_escape, quote(text, safe=_IN_PATH + more, errors="replace"))


def _escape(found: re.Match[str]) -> str:
    if found[1] is None:
        return "%25"
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()


def _without_dots(path: str) -> str:
    kept: list[str] = []
    *folders, last = path.split("/")[1:]
    for part in folders:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    if last == "..":
        del kept[-1:]
    return "/" + "".join(f"{part}/" for part in kept) + (last if last not in (".", "..") else "")


def _refusal(fault: str) -> Invalid:
    return Invalid(Reason.URL_INVALID, f"This address can't be fetched: {fault}.", violations={"url": fault})


def _refuse(fault: str) -> NoReturn:
    raise _refusal(fault)
