"""Delivery: what readers get, early, late and slow, and how words share events."""

import asyncio
from uuid import uuid4

import pytest

from services.chat.live import TAIL_ENTRIES, LiveTurn
from services.chat.turn import Completed, Entry, Event, FinishReason, TextDelta
from services.chat.words import MAX_DELTA_BYTES, Words
from services.shared.errors import Reason, Unavailable
from tests.chat.conftest import entries_of
from tests.chat.fakes import FakeTurnLog


def a_live_turn(log: FakeTurnLog) -> LiveTurn:
    """One that runs elsewhere: it keeps only a tail."""
    return LiveTurn(uuid4(), log, runs_here=False, reader_grace_s=0)


async def write(turn: LiveTurn, log: FakeTurnLog, *events: Event) -> None:
    entries = entries_of(turn.turn_id, turn.last + 1, *events)
    await log.append(turn.turn_id, turn.last, entries)
    turn.deliver(entries)


async def collected(turn: LiveTurn, after: int = 0) -> list[Entry]:
    return [entry async for entry in turn.follow(after)]


async def test_readers_that_come_at_any_time_get_the_same_entries() -> None:
    log = FakeTurnLog()
    turn = a_live_turn(log)
    readers = []
    for number in range(2 * TAIL_ENTRIES):
        readers.append(asyncio.create_task(collected(turn)))
        await write(turn, log, TextDelta(f"{number} "))
        await asyncio.sleep(0)
    await write(turn, log, Completed(FinishReason.STOP))
    assert all(entries == log.entries[turn.turn_id] for entries in await asyncio.gather(*readers))


async def test_a_reader_may_begin_after_any_entry() -> None:
    log = FakeTurnLog()
    turn = a_live_turn(log)
    await write(turn, log, *(TextDelta(f"{number} ") for number in range(3)))
    await write(turn, log, Completed(FinishReason.STOP))
    for after in range(5):
        assert [entry.sequence for entry in await collected(turn, after)] == list(range(after + 1, 5))


async def test_a_reader_in_step_never_reads_the_log() -> None:
    log = FakeTurnLog()
    turn = a_live_turn(log)
    reader = asyncio.create_task(collected(turn))
    for number in range(3 * TAIL_ENTRIES):
        await write(turn, log, TextDelta(f"{number} "))
        await asyncio.sleep(0)
    await write(turn, log, Completed(FinishReason.STOP))
    assert len(await reader) == 3 * TAIL_ENTRIES + 1
    assert log.reads == 0


async def test_a_reader_that_stops_reading_slows_nobody_and_misses_nothing() -> None:
    log = FakeTurnLog()
    turn = a_live_turn(log)
    slow = turn.follow()
    await write(turn, log, TextDelta("0 "))
    first = await anext(slow)
    for number in range(1, 5 * TAIL_ENTRIES):
        await write(turn, log, TextDelta(f"{number} "))
    await write(turn, log, Completed(FinishReason.STOP))
    assert [first, *[entry async for entry in slow]] == log.entries[turn.turn_id]


async def test_where_a_turn_runs_the_log_is_not_needed_for_reading() -> None:
    log = FakeTurnLog()
    turn = LiveTurn(uuid4(), log, runs_here=True, reader_grace_s=0)
    await write(turn, log, *(TextDelta("x") for _ in range(5 * TAIL_ENTRIES)), Completed(FinishReason.STOP))
    log.down = True
    assert len(await collected(turn)) == 5 * TAIL_ENTRIES + 1
    assert [entry.sequence for entry in await collected(turn, 600)] == list(range(601, 642))


async def test_a_late_reader_whose_log_is_lost_is_told_so() -> None:
    log = FakeTurnLog()
    turn = a_live_turn(log)
    await write(turn, log, *(TextDelta("x") for _ in range(3 * TAIL_ENTRIES)))
    log.entries.clear()
    with pytest.raises(Unavailable) as refused:
        await collected(turn)
    assert refused.value.reason is Reason.TURN_LOG_UNAVAILABLE


async def test_words_leave_at_once_when_alone() -> None:
    spoken = Words()
    for word in ("one ", "two "):
        spoken.put(word)
        assert await spoken.take() == word


async def test_words_that_come_meanwhile_share_an_event() -> None:
    spoken = Words()
    for word in ("one ", "two ", "three"):
        spoken.put(word)
    spoken.finish(FinishReason.STOP)
    assert [await spoken.take(), await spoken.take()] == ["one two three", ""]
    assert spoken.text == "one two three"


@pytest.mark.parametrize("text", ["x" * 9001, "אבג" * 3000, "🦩" * 2500, "xג🦩" * 1500])
async def test_long_words_are_cut_between_characters(text: str) -> None:
    spoken = Words()
    spoken.put(text)
    spoken.finish(FinishReason.LENGTH)
    parts = []
    while part := await spoken.take():
        assert len(part.encode()) <= MAX_DELTA_BYTES
        parts.append(part)
    assert "".join(parts) == text


async def test_words_before_a_failure_are_still_taken() -> None:
    spoken = Words()
    spoken.put("half")
    spoken.fail(Unavailable(Reason.MODEL_UNAVAILABLE, "died"))
    assert await spoken.take() == "half"
    with pytest.raises(Unavailable):
        await spoken.take()


async def test_cancelling_after_the_end_changes_nothing() -> None:
    spoken = Words()
    spoken.put("whole")
    spoken.finish(FinishReason.STOP)
    spoken.cancel()
    assert await spoken.take() == "whole"
    assert not spoken.cancelled


async def test_an_absence_from_a_run_before_does_not_stop_a_turn_that_is_read_again() -> None:
    turn = LiveTurn(uuid4(), FakeTurnLog(), runs_here=True, reader_grace_s=0)
    turn.join()
    turn.leave()
    turn.run_here((), 0)  # it was lost and taken over again
    turn.join()
    for _ in range(20):
        await asyncio.sleep(0)
    assert turn.wish is None
