"""How often a host is asked, on a clock that only sleeping moves."""

import asyncio

from services.knowledge.crawl.pace import AT_ONCE, Pace


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


async def starts(pace: Pace, clock: Clock, host: str, delays_s: list[float]) -> list[float]:
    found = []
    for delay_s in delays_s:
        async with pace.turn(host, delay_s):
            found.append(clock.now_s - 100.0)
    return found


async def test_requests_to_a_host_are_apart_as_it_asks_and_at_least_as_we_want() -> None:
    clock = Clock()
    pace = Pace(0.25, clock, clock.sleep)
    assert await starts(pace, clock, "a", [0.0, 0.0, 3.0, 0.0]) == [0.0, 0.25, 0.5, 3.5]
    assert await starts(pace, clock, "b", [0.0]) == [3.5]  # another host need not wait


async def test_a_host_that_is_asked_too_often_is_left_alone() -> None:
    clock = Clock()
    pace = Pace(0.25, clock, clock.sleep)
    pace.hold("a", 7.0)
    assert await starts(pace, clock, "a", [0.0]) == [7.0]
    pace.hold("a", 10_000.0)
    assert await starts(pace, clock, "a", [0.0]) == [37.0]
    pace.hold("a", 0.0)
    assert await starts(pace, clock, "a", [0.0]) == [42.0]


async def test_a_host_gets_few_requests_at_once() -> None:
    pace, running, most = Pace(0.0), 0, 0

    async def ask(host: str) -> None:
        nonlocal running, most
        async with pace.turn(host, 0.0):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(ask("a") for _ in range(10)))
    assert most == AT_ONCE
    await asyncio.gather(*(ask(f"host {number}") for number in range(2000)))
    assert len(pace._hosts) < 2000  # those of the past are forgotten
