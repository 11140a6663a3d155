"""Turns that failed before their first word and are asked for again, while readers still stand in the first try."""

import asyncio
from contextlib import suppress
from uuid import UUID

import pytest

from services.chat.turn import Asker, Completed, Entry, Failed, Question, Started
from services.shared.errors import NotFound, Reason, Refusal, Unavailable
from tests.chat.conftest import Chat, a_question, an_asker, kinds, until, words
from tests.chat.fakes import EchoModel

TEXT = "one two three four five"
DOWN = Unavailable(Reason.MODEL_UNAVAILABLE, "down")


@pytest.fixture
def one() -> Chat:
    return Chat(model=EchoModel(TEXT))


@pytest.fixture
def other(one: Chat) -> Chat:
    return one.other(model=EchoModel(TEXT))


async def failed(chat: Chat, asker: Asker, question: Question) -> list[Entry]:
    """What a first try without a model shows."""
    chat.model.dying = True
    entries, refused = await chat.ask_until_failed(asker, question)
    assert isinstance(refused, Unavailable)
    chat.model.dying = False
    return entries


async def test_no_number_but_the_first_is_given_twice(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question()
    first = await failed(one, asker, question)
    second = await failed(one, asker, question)
    third = await other.ask(asker, question)
    assert kinds(first) == ["Started", "Sources", "Usage", "Failed"]
    assert kinds(second) == ["Started", "Rewound", "Sources", "Usage", "Failed"]
    assert kinds(third)[:3] == ["Started", "Rewound", "Sources"]
    assert first[0].encoded == second[0].encoded == third[0].encoded
    numbers = [entry.sequence for entries in (first, second, third) for entry in entries[1:]]
    assert len(set(numbers)) == len(numbers)
    (log,) = one.log.entries.values()
    assert log == third


@pytest.mark.parametrize("after", range(5))
async def test_a_reader_who_stands_in_the_first_try_is_rewound(one: Chat, other: Chat, after: int) -> None:
    asker, question = an_asker(), a_question()
    first = await failed(one, asker, question)
    (turn_id,) = one.conversations.questions
    other.change(model=EchoModel(TEXT, pause_after=2))
    async with other.reading(asker, question) as turn:
        await until(lambda: words(turn.entries) == "one two")
        readers = [asyncio.create_task(chat.resume(asker, turn_id, after)) for chat in (one, other)]
        await until(lambda: turn.readers == 2)
        other.model.go_on.set()
        everything = [entry async for entry in turn.follow()]
        for entries in await asyncio.gather(*readers):
            assert entries == (everything[1:] if after else everything)
    assert everything[0] == first[0]
    assert words(everything) == TEXT


async def test_a_follower_that_stands_in_the_first_try_is_rewound(one: Chat, other: Chat) -> None:
    """Its replica stood still while the first try failed and the second one began."""
    asker, question = an_asker(), a_question()
    one.change(model=EchoModel(TEXT, pause_after=0))
    async with one.reading(asker, question) as turn:
        await until(lambda: turn.last == 2)
        other.line.pause_at = (other.line.steps + 5, "before")  # record, log, itself shown, first page: then the next
        following = await other.turns.resume(asker, turn.turn_id, 0)
        await until(lambda: not other.line.go_on.is_set())
        assert following.live.last == 2
        one.model.dying = True
        one.model.go_on.set()
        with pytest.raises(Unavailable):
            [_ async for _ in turn.follow()]
    await one.settled()
    one.model.dying = False
    again = await one.ask(asker, question)
    other.line.go_on.set()
    followed = [entry async for entry in following.follow()]
    following.leave()
    assert kinds(followed[:2]) == ["Started", "Sources"]
    assert followed[2:] == again[1:]


async def test_a_copy_that_comes_before_the_second_try_writes_waits_for_it(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question()
    first = await failed(one, asker, question)
    await one.settled()
    one.log.appending = asyncio.Event()
    async with one.reading(asker, question):
        await until(lambda: any(row.end is None for row in one.records.rows.values()))
        async with other.reading(asker, question) as copy:
            await until(lambda: copy.last == 3)
            one.log.appending.set()
            entries = [entry async for entry in copy.follow()]
    assert entries[:3] == first[:3]
    assert kinds(entries)[3] == "Rewound"
    assert words(entries) == TEXT


async def test_a_log_that_knows_the_first_try_alone_does_not_tell_the_end_of_the_second(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question()
    first = await failed(one, asker, question)
    await one.settled()
    one.log.down = True
    assert words(await one.ask(asker, question)) == TEXT
    one.kill()
    one.log.down = False
    entries, refused = await other.ask_until_failed(asker, question)
    assert entries == first[:3]
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.TURN_NOT_RESUMABLE


@pytest.mark.parametrize(
    "refusal",
    [NotFound(Reason.CONVERSATION_NOT_FOUND, "gone"), Unavailable(Reason.CONVERSATION_UNAVAILABLE, "down")],
    ids=lambda refusal: refusal.reason,
)
async def test_a_second_try_that_session_refuses_fails_at_once(one: Chat, other: Chat, refusal: Refusal) -> None:
    asker, question = an_asker(), a_question()
    await failed(one, asker, question)
    one.conversations.refusal = refusal
    entries, raised = await one.ask_until_failed(asker, question)
    assert kinds(entries) == ["Started", "Rewound", "Usage", "Failed"]
    assert entries[-1].event == Failed(refusal.reason, refusal.message)
    assert isinstance(raised, type(refusal))
    await one.settled()
    (turn_id,) = one.conversations.questions
    assert await resumed(other, asker, turn_id, 2) == entries[1:]
    one.conversations.refusal = None
    assert words(await other.ask(asker, question)) == TEXT


async def resumed(chat: Chat, asker: Asker, turn_id: UUID, after: int) -> list[Entry]:
    """What a reader gets of a turn that failed."""
    reading = await chat.turns.resume(asker, turn_id, after)
    entries: list[Entry] = []
    with suppress(Refusal):
        async for entry in reading.follow():
            entries.append(entry)
    reading.leave()
    return entries


async def test_a_second_try_goes_on_at_another_replica_from_its_words(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question()
    await failed(one, asker, question)
    one.change(model=EchoModel(TEXT, pause_after=2))
    async with one.reading(asker, question) as turn:
        await until(lambda: words(turn.entries) == "one two")
        seen = turn.last
        one.kill()
        await other.ownership.beat()
        await other.ownership.beat()
        entries = await other.resume(asker, turn.turn_id)
    assert kinds(entries).count("Rewound") == 1
    assert words(entries) == TEXT
    assert entries[seen - entries[1].sequence + 2].sequence == seen + 1


async def test_a_second_try_that_died_before_it_wrote_is_made_by_another_replica(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question()
    first = await failed(one, asker, question)
    await one.settled()
    one.log.appending = asyncio.Event()
    async with one.reading(asker, question) as turn:
        await until(lambda: any(row.end is None for row in one.records.rows.values()))
        one.kill()
        one.log.appending = None
        await other.ownership.beat()
        await other.ownership.beat()
        entries = await other.resume(asker, turn.turn_id, 2)
    assert kinds(entries)[:2] == ["Rewound", "Sources"]
    assert entries[0].sequence > first[-1].sequence
    assert words(entries) == TEXT
    assert [type(end) for _, end in one.records.ended] == [Failed, Completed]


async def test_a_second_try_does_not_wait_until_the_log_of_the_first_is_healed(one: Chat) -> None:
    asker, question = an_asker(), a_question()
    one.log.down = True
    first = await failed(one, asker, question)
    entries = await one.ask(asker, question)
    assert [entries[0], kinds(entries)[1]] == [first[0], "Rewound"]
    assert isinstance(entries[0].event, Started)
    assert not entries[0].event.resumable
    assert words(entries) == TEXT
    one.log.down = False
    await one.settled()
    (log,) = one.log.entries.values()
    assert log == entries
