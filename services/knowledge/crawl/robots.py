"""What a site asks of robots: robots.txt (RFC 9309), the robots meta element and the X-Robots-Tag header."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from protego import Protego

from services.shared.outbound.url import Url

AGENT = "ParleyBot"
MAX_BYTES = 500 * 1024  # what RFC 9309 asks a robot to read at least
_NAMES_ROBOT = re.compile(r"\s*user[- ]?agent\b[\s:]*([^#]*)", re.IGNORECASE)
_MOST_DELAY_S = 10.0
_MOST_SITEMAPS = 20


@dataclass(frozen=True)
class Directives:
    """What one page asks."""

    noindex: bool = False
    nofollow: bool = False

    def __or__(self, other: "Directives") -> "Directives":
        return Directives(self.noindex or other.noindex, self.nofollow or other.nofollow)


class Robots:
    """The rules of one site."""

    def __init__(self, text: str = "") -> None:
        self._rules = Protego.parse("\n".join(map(_for_us, text.splitlines())))

    def allow(self, url: Url) -> bool:
        return self._rules.can_fetch(str(url), AGENT)

    @property
    def delay_s(self) -> float:
        """What the site asks to leave between two requests, as far as it is heard."""
        return min(self._rules.crawl_delay(AGENT) or 0.0, _MOST_DELAY_S)

    @property
    def sitemaps(self) -> list[str]:
        return list(self._rules.sitemaps)[:_MOST_SITEMAPS]


def _for_us(line: str) -> str:
    """The line, all other robots under one name: the parser keeps each rule once for each robot that it names, and a
    hostile file names very many."""
    if (found := _NAMES_ROBOT.match(line)) is None:
        return line
    name = found[1].strip().lower()
    return f"User-agent: {name if name in ('*', AGENT.lower()) else 'other'}"


def directives(values: Iterable[str]) -> Directives:
    """What the values of robots elements or headers ask of us. A value may begin with the name of another robot."""
    found = Directives()
    for value in values:
        meant = True
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in ("unavailable_after", "max-snippet", "max-image-preview"):
                meant, part = name.strip() == AGENT.lower(), rest
            word = part.strip()
            if meant:
                everything = word == "none"
                found |= Directives(word == "noindex" or everything, word == "nofollow" or everything)
    return found
