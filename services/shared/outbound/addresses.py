"""Which addresses a service may connect to on behalf of a user: the public internet, and what an operator adds.

All that is not meant for everybody is refused, also where it hides in an address of another kind (IPv4 in IPv6).
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from services.shared.errors import Invalid, Reason
from services.shared.outbound.url import Url
from services.shared.serving.settings import SettingsError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PORTS: tuple[int, ...] = (80, 443)
_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network, unspecified
        "10.0.0.0/8",
        "100.64.0.0/10",  # behind a carrier's NAT, and the metadata of some clouds
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own agent, at a public address
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class _Allowed:
    network: Network
    ports: tuple[int, ...]


class Addresses:
    """Decides about each address. `allowed` are networks or addresses, each with a port or for the usual ports:
    10.1.0.0/16, 10.1.2.3:8080, [fd00::1]:8080. Names are not taken: who answers for a name would decide."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        """Raises SettingsError."""
        self._allowed = [_parsed(entry) for entry in allowed]

    def admits(self, address: Address, port: int) -> bool:
        address = _embedded(address)
        if any(port in entry.ports and address in entry.network for entry in self._allowed):
            return True
        return port in PORTS and _is_public(address)

    def check(self, url: Url) -> None:
        """Raise Invalid if it is plain without a look-up that the address may not be asked."""
        address = _literal(url.host)
        if address:
            admitted = self.admits(address, url.port)
        else:
            admitted = url.port in PORTS or any(url.port in entry.ports for entry in self._allowed)
        if not admitted:
            raise not_allowed(url.host, url.port)


def not_allowed(host: str, port: int) -> Invalid:
    message = f"{host} at port {port} is no address of the public internet that may be asked from here."
    violations = {"url": "its address is not allowed"}
    return Invalid(Reason.ADDRESS_NOT_ALLOWED, message, violations=violations, host=host, port=port)


def _literal(host: str) -> Address | None:
    if host == "localhost" or host.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _embedded(address: Address) -> Address:
    """The IPv4 address that packets to this address end at, where the way there is the system's or the network's."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _PUBLIC_V6 and not address.scope_id and not any(address in network for network in _REFUSED_V6)


def _parsed(entry: str) -> _Allowed:
    text, ports = entry, PORTS
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and ("." in host or host.endswith("]")):
        text, ports = host.strip("[]"), (int(port),)
    try:
        return _Allowed(ipaddress.ip_network(text), ports)
    except ValueError as error:
        raise SettingsError(f"{entry!r} is no address or network such as 10.1.0.0/16 or 10.1.2.3:8080") from error
