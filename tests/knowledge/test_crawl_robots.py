"""What sites ask of robots, as far as it is read here and not by the parser of robots.txt."""

import pytest

from services.knowledge.crawl.robots import Directives, Robots, directives
from services.shared.outbound.url import parse


def allowed(rules: Robots, *paths: str) -> list[bool]:
    return [rules.allow(parse(f"http://example.com{path}")) for path in paths]


def test_our_own_group_counts_before_that_of_all() -> None:
    rules = Robots(
        "User-agent: googlebot\nUser-Agent : PARLEYBOT # we\nDisallow: /x\nCrawl-delay: 2\n\n"
        "useragent *\nDisallow: /\nCrawl-delay: 7\n\nUser-agent: parley\nUser-agent: bot\nDisallow: /y\n"
    )
    assert allowed(rules, "/x", "/y", "/robots.txt") == [False, True, True]
    assert rules.delay_s == 2.0


def test_rules_of_other_robots_are_not_ours() -> None:
    rules = Robots("User-agent: *\nDisallow: /all\n\nUser-agent: other\nDisallow: /\nCrawl-delay: 9\n")
    assert allowed(rules, "/all", "/else") == [False, True]
    assert rules.delay_s == 0.0


def test_a_file_that_names_very_many_robots_is_read() -> None:
    """Each rule once for each of them would be hundreds of millions."""
    names = "\n".join(f"User-agent: robot{number}" for number in range(18_000))
    rules = Robots(f"{names}\nUser-agent: *\n" + "Disallow: /a\n" * 20_000)
    assert allowed(rules, "/a", "/b") == [False, True]


@pytest.mark.parametrize("text", ["", "\0\ufeff", "Disallow: /\n", "User-agent\n", "<html>", "Crawl-delay: nan\n" * 3])
def test_what_is_no_robots_txt_forbids_nothing(text: str) -> None:
    assert allowed(Robots(text), "/") == [True]


def test_a_site_is_not_waited_for_without_end() -> None:
    assert Robots("User-agent: *\nCrawl-delay: 86400\n").delay_s == 10.0
    assert Robots("User-agent: *\nCrawl-delay: -1\n").delay_s == 0.0


@pytest.mark.parametrize(
    ("values", "noindex", "nofollow"),
    [
        ([], False, False),
        (["all"], False, False),
        (["NOINDEX"], True, False),
        ([" noindex , nofollow "], True, True),
        (["none"], True, True),
        (["noindex", "nofollow"], True, True),
        (["googlebot: noindex"], False, False),
        (["ParleyBot: noindex, nofollow"], True, True),
        (["googlebot: noindex, parleybot: nofollow"], False, True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noindex"], True, False),
        (["max-snippet: 20, nofollow"], False, True),
        ([":", ",", "noindexed"], False, False),
    ],
)
def test_directives_are_those_for_us(values: list[str], noindex: bool, nofollow: bool) -> None:
    assert directives(values) == Directives(noindex, nofollow)
