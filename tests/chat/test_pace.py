"""Words that go on at once, or together: pace.py and words.py, on a clock that jumps."""

import asyncio
from itertools import pairwise

import pytest

from services.chat.pace import TICK_S, Pace
from services.chat.turn import FinishReason
from services.chat.words import Words
from tests.chat.jumping import in_no_time

PACE = Pace(events_per_s=800, longest_s=0.12)


@pytest.mark.parametrize(
    ("turns", "interval_s"), [(0, 0), (1, 0), (15, 0), (16, 0.02), (50, 0.06), (100, 0.12), (500, 0.12)]
)
def test_the_interval_grows_with_the_turns_up_to_a_limit(turns: int, interval_s: float) -> None:
    assert PACE.interval_s(turns) == pytest.approx(interval_s)


def taken(every_s: float, count: int, *intervals_s: float) -> list[tuple[float, str]]:
    """When which words are taken from a model that says a number `every_s`; the last interval stays."""

    async def take() -> list[tuple[float, str]]:
        words, pieces = Words(), list[tuple[float, str]]()
        clock = asyncio.get_running_loop().time

        async def speak() -> None:
            for number in range(count):
                words.put(f"{number} ")
                await asyncio.sleep(every_s)
            words.finish(FinishReason.STOP)

        speaking = asyncio.create_task(speak())
        waits = iter(intervals_s)
        interval_s = next(waits)
        while text := await words.take(interval_s):
            pieces.append((clock(), text))
            interval_s = next(waits, interval_s)
        await speaking
        return pieces

    return in_no_time(take())


def test_without_an_interval_each_word_goes_on_at_once() -> None:
    assert taken(0.01, 4, 0) == [(pytest.approx(0.01 * n), f"{n} ") for n in range(4)]


def test_words_of_an_interval_go_on_together_and_none_is_lost() -> None:
    pieces = taken(0.01, 100, 0, 0.1)
    times_s = [time_s for time_s, _ in pieces]
    assert "".join(text for _, text in pieces) == "".join(f"{n} " for n in range(100))
    assert times_s[0] == 0
    gaps_s = [after - before for before, after in pairwise(times_s[:-1])]  # the end waits for nothing
    assert all(0.1 - 1e-6 <= gap_s <= 0.1 + TICK_S + 1e-6 for gap_s in gaps_s), gaps_s


def test_a_model_that_keeps_to_the_interval_waits_for_no_more_than_a_tick() -> None:
    pieces = taken(0.1, 20, 0, 0.1)
    assert len(pieces) == 20
    assert all(time_s - 0.1 * n <= TICK_S + 1e-6 for n, (time_s, _) in enumerate(pieces))


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_an_end_is_not_waited_for(end: str) -> None:
    async def take() -> tuple[str, float]:
        words = Words()
        words.put("one ")
        await words.take()
        words.put("two")
        taking = asyncio.create_task(words.take(10.0))
        await asyncio.sleep(0)
        getattr(words, end)(*{"finish": (FinishReason.STOP,), "fail": (ValueError(),), "cancel": ()}[end])
        return await taking, asyncio.get_running_loop().time()

    assert in_no_time(take()) == ("" if end == "cancel" else "two", 0)
