"""One suite for the log of turns: on the fake, and on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.chat.live import LogBehind, TurnLog, TurnTaken
from services.chat.turn import (
    CancellationCause,
    Cancelled,
    Completed,
    Entry,
    Failed,
    FinishReason,
    Rewound,
    Sources,
    TextDelta,
    Usage,
)
from services.chat.turnlog import KEPT_S, ValkeyTurnLog
from services.shared.errors import Reason, Unavailable
from stack import valkey
from stack.catalog import started
from stack.mesh import Mesh
from tests.chat.conftest import entries_of, words
from tests.chat.fakes import FakeTurnLog


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with started(tmp_path_factory.mktemp("valkey"), "valkey") as mesh:
        yield mesh


@pytest.fixture(scope="module")
async def real_log(mesh: Mesh) -> AsyncIterator[ValkeyTurnLog]:
    async with ValkeyTurnLog(f"redis://chat@{mesh.address('valkey')}/0", mesh.secret_file("valkey-chat")) as log:
        yield log


@pytest.fixture(params=["fake", "valkey"])
def log(request: pytest.FixtureRequest) -> TurnLog:
    return FakeTurnLog() if request.param == "fake" else request.getfixturevalue("real_log")


LoseLast = Callable[[UUID], Awaitable[None]]


@pytest.fixture
def lose_last(log: TurnLog, mesh: Mesh) -> LoseLast:
    """What a restart may do: the last entry is gone, and so are the connections."""

    async def lose(turn_id: UUID) -> None:
        if isinstance(log, FakeTurnLog):
            log.lose(1)
            return
        async with valkey.connect(mesh, "operator") as operator:
            key = f"turn:{{{turn_id}}}:events"
            kept = (await operator.xrange(key))[:-1]
            await operator.delete(key)
            for number, fields in kept:
                await operator.xadd(key, fields, id=number)
            await operator.client_kill_filter(user="chat", skipme=True)

    return lose


async def available(work: Callable[[], Awaitable[None]]) -> None:
    """Do it once the log can be reached."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(0.01)


async def test_entries_come_back_as_they_were_written(log: TurnLog) -> None:
    turn_id = uuid4()
    failed = Failed(Reason.MODEL_UNAVAILABLE, "gone")
    events = [Sources((), degraded=True), TextDelta("שלום 🦩"), Usage(7, 2), Completed(FinishReason.LENGTH, uuid4())]
    entries = entries_of(turn_id, 1, *events, failed, Cancelled(None, CancellationCause.DEADLINE, 17))
    entries[1] = replace(entries[1], note="7 2")
    await log.append(turn_id, 0, entries[:1])
    await log.append(turn_id, 1, entries[1:2])
    await log.append(turn_id, 2, entries[2:])
    assert await log.read(turn_id, 0) == entries
    assert await log.last(turn_id) == entries[-1]
    assert await log.read(turn_id, 4) == entries[4:]
    assert await log.read(turn_id, 6) == []
    assert await log.last(uuid4()) is None


async def test_a_full_store_is_no_other_writer(mesh: Mesh, real_log: ValkeyTurnLog) -> None:
    turn_id = uuid4()
    async with valkey.connect(mesh, "operator") as operator:
        await operator.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(Unavailable):
                await real_log.append(turn_id, 0, entries_of(turn_id, 1, TextDelta("words")))
            with pytest.raises(Unavailable):
                await real_log.append(turn_id, 0, entries_of(turn_id, 1, TextDelta("words"), Usage(1, 1)))
        finally:
            await operator.config_set("maxmemory", "256mb")


async def test_a_number_is_written_once(log: TurnLog) -> None:
    turn_id = uuid4()
    await log.append(turn_id, 0, entries_of(turn_id, 1, TextDelta("mine"), TextDelta("too")))
    for first in (1, 2):
        with pytest.raises(TurnTaken):
            await log.append(turn_id, first - 1, entries_of(turn_id, first, TextDelta("theirs")))
    assert words(await log.read(turn_id, 0)) == "minetoo"


async def test_another_life_of_the_store_is_not_written_to_unasked(log: TurnLog) -> None:
    turn_id = uuid4()
    entries = entries_of(turn_id, 1, TextDelta("one"))
    with pytest.raises(Unavailable):
        await log.append(turn_id, 0, entries, incarnation="another life")
    assert await log.read(turn_id, 0) == []
    life = await log.append(turn_id, 0, entries)
    assert life == log.incarnation
    assert await log.append(turn_id, 1, entries_of(turn_id, 2, TextDelta("two")), incarnation=life) == life


async def test_an_append_that_is_sent_again_is_done_once(log: TurnLog) -> None:
    turn_id = uuid4()
    entries = entries_of(turn_id, 1, TextDelta("one"))
    await log.append(turn_id, 0, entries)
    await log.append(turn_id, 0, entries)
    several = entries_of(turn_id, 2, TextDelta("two"), Usage(1, 1))
    await log.append(turn_id, 1, several)
    await log.append(turn_id, 1, several)
    assert await log.read(turn_id, 0) == entries + several


async def test_a_rewind_leaves_the_first_entry_and_what_follows(log: TurnLog) -> None:
    turn_id = uuid4()
    first, *void = entries_of(turn_id, 1, Sources((), degraded=False), *(TextDelta("old") for _ in range(300)))
    await log.append(turn_id, 0, [first, *void])
    again = entries_of(turn_id, 2_000_000, Rewound(), TextDelta("new"))
    for _ in range(2):  # the second time, as after a lost answer
        await log.append(turn_id, 301, again)
        assert await log.read(turn_id, 0) == [first, *again]
    assert await log.read(turn_id, 17) == again
    assert await log.last(turn_id) == again[-1]


async def test_nobody_writes_behind_a_rewind(log: TurnLog) -> None:
    turn_id = uuid4()
    first, second, late = entries_of(turn_id, 1, *(TextDelta(f"{number} ") for number in range(3)))
    rewound = entries_of(turn_id, 3_000_000, Rewound())
    await log.append(turn_id, 0, [first, second])
    await log.append(turn_id, 2, rewound)
    for entry in (second, late, *entries_of(turn_id, 2_000_000, Rewound())):
        with pytest.raises(TurnTaken):
            await log.append(turn_id, 2, [entry])
    assert await log.read(turn_id, 0) == [first, *rewound]


async def test_turns_do_not_meet(log: TurnLog) -> None:
    one, other = uuid4(), uuid4()
    await log.append(one, 0, entries_of(one, 1, TextDelta("one")))
    assert await log.read(other, 0) == []


async def test_a_long_log_is_read_by_pages(log: TurnLog) -> None:
    turn_id = uuid4()
    entries = entries_of(turn_id, 1, *(TextDelta(f"{number} ") for number in range(700)))
    await log.append(turn_id, 0, entries)
    found: list[Entry] = []
    while page := await log.read(turn_id, len(found)):
        assert len(page) < 700
        found += page
    assert found == entries


async def test_a_reader_waits_for_what_comes(log: TurnLog) -> None:
    turn_id = uuid4()
    waiting = asyncio.create_task(log.read(turn_id, 0, wait_s=10))
    await log.append(turn_id, 0, entries_of(turn_id, 1, TextDelta("here")))
    assert words(await waiting) == "here"
    assert await log.read(turn_id, 1, wait_s=0.02) == []


async def test_a_wait_longer_than_a_dead_connection_is_waited_for_is_no_failure(log: TurnLog) -> None:
    assert await log.read(uuid4(), 0, wait_s=2.2) == []


async def test_a_log_that_lost_its_end_takes_nothing_beyond_it(log: TurnLog, lose_last: LoseLast) -> None:
    turn_id = uuid4()
    entries = entries_of(turn_id, 1, *(TextDelta(f"{number} ") for number in range(4)))
    await log.append(turn_id, 0, entries[:3])
    await lose_last(turn_id)
    with pytest.raises(LogBehind) as behind:
        await available(lambda: log.append(turn_id, 3, entries[3:]))
    assert behind.value.last == 2
    await log.append(turn_id, 2, entries[2:])
    assert await log.read(turn_id, 0) == entries


async def test_readers_elsewhere_are_known(log: TurnLog) -> None:
    turn_id = uuid4()
    assert not await log.has_reader(turn_id)
    await log.show_reader(turn_id)
    assert await log.has_reader(turn_id)


async def test_a_log_lives_for_a_day_after_its_end(real_log: ValkeyTurnLog, mesh: Mesh) -> None:
    turn_id = uuid4()
    key = f"turn:{{{turn_id}}}:events"
    async with valkey.connect(mesh, "operator") as operator:
        await real_log.append(turn_id, 0, entries_of(turn_id, 1, Sources((), degraded=False)))
        assert 0 < await operator.ttl(key) <= KEPT_S
        await operator.expire(key, 10)
        await real_log.append(turn_id, 1, entries_of(turn_id, 2, TextDelta("word")))
        await real_log.append(turn_id, 2, entries_of(turn_id, 3, Usage(1, 1), Completed(FinishReason.STOP)))
        assert KEPT_S - 60 < await operator.ttl(key) <= KEPT_S


async def test_many_turns_append_at_once(real_log: ValkeyTurnLog) -> None:
    turns = [uuid4() for _ in range(100)]
    for number in range(5):
        text = TextDelta(f"{number} ")
        await asyncio.gather(
            *(real_log.append(turn_id, number, entries_of(turn_id, number + 1, text)) for turn_id in turns)
        )
    for turn_id in turns:
        assert words(await real_log.read(turn_id, 0)) == "0 1 2 3 4 "


async def test_without_valkey_the_log_is_unavailable(mesh: Mesh, tmp_path: Path) -> None:
    turn_id = uuid4()
    async with ValkeyTurnLog("redis://chat@127.0.0.1:1/0", None) as gone:
        calls = (
            gone.begin(turn_id),
            gone.append(turn_id, 0, entries_of(turn_id, 1, TextDelta("x"))),
            gone.append(turn_id, 0, entries_of(turn_id, 1, TextDelta("x"), Usage())),
            gone.read(turn_id, 0),
            gone.read(turn_id, 0, wait_s=1),
            gone.last(turn_id),
            gone.has_reader(turn_id),
        )
        for call in calls:
            with pytest.raises(Unavailable) as refused:
                await call
            assert refused.value.reason is Reason.TURN_LOG_UNAVAILABLE
    wrong = tmp_path / "password"
    wrong.write_text("wrong")
    async with ValkeyTurnLog(f"redis://chat@{mesh.address('valkey')}/0", wrong) as stranger:
        with pytest.raises(Unavailable):
            await stranger.begin(turn_id)


async def test_a_lost_connection_is_made_again(real_log: ValkeyTurnLog, mesh: Mesh) -> None:
    turn_id = uuid4()
    await real_log.append(turn_id, 0, entries_of(turn_id, 1, TextDelta("one ")))
    async with valkey.connect(mesh, "operator") as operator:
        await operator.client_kill_filter(user="chat", skipme=True)
    await available(lambda: real_log.append(turn_id, 1, entries_of(turn_id, 2, TextDelta("two"))))
    assert words(await real_log.read(turn_id, 0)) == "one two"
