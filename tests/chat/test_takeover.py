"""Turns that outlive their replica: taken over, fenced, rewound, handed over, and cancelled from anywhere.

A replica is killed by cutting it off from everything outside: whatever it waits for never comes.
"""

import asyncio
from datetime import UTC, datetime

import pytest

from services.chat.turn import (
    CancellationCause,
    Cancelled,
    Completed,
    Message,
    Rewound,
    Role,
    Sources,
    Usage,
)
from services.shared.errors import Exhausted, Invalid, NotFound, Reason, Refusal, Unavailable, WrongState
from tests.chat.conftest import Chat, a_faq, a_passage, a_question, an_asker, kinds, until, words
from tests.chat.fakes import EchoModel, FakeModel, completed

TEXT = "one two three four five"


@pytest.fixture
def one() -> Chat:
    """Runs turns whose model stops after two words until `model.go_on` is set."""
    return Chat(model=EchoModel(TEXT, pause_after=2))


@pytest.fixture
def other(one: Chat) -> Chat:
    return one.other(model=EchoModel(TEXT))


async def killed(one: Chat, other: Chat) -> None:
    """`one` is dead, and `other` has noticed."""
    one.kill()
    await other.ownership.beat()  # renews
    await other.ownership.beat()  # looks


async def test_a_copy_that_claims_while_the_turn_is_taken_over_hears_it(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question()
    other.change(model=EchoModel(TEXT, pause_after=3))
    other.line.go_on.clear()  # its claim is on the way for a while
    async with one.reading(asker, question) as turn:
        await until(lambda: turn.last == 4)
        async with other.reading(asker, question) as copy:
            await until(lambda: other.line.steps == 1)
            one.kill()
            (taken,) = await other.records.take_over((), 1)
            other.turns.go_on(taken)
            other.line.go_on.set()
            await until(lambda: copy.last == 5)
            other.model.go_on.set()
            entries = [entry async for entry in copy.follow()]
    assert words(entries) == TEXT
    assert kinds(entries)[-2:] == ["Usage", "Completed"]
    await other.settled()


async def test_another_replica_goes_on_from_the_logged_words(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question()
    one.documents.passages = [a_passage()]
    one.conversations.history = [Message(Role.USER, "Hello"), Message(Role.ASSISTANT, "Hi")]
    async with one.reading(asker, question) as turn:
        await until(lambda: turn.last == 4)
        await killed(one, other)
        entries = await other.resume(asker, turn.turn_id)
    assert words(entries) == TEXT
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    assert kinds(entries)[:2] == ["Started", "Sources"]
    assert kinds(entries)[-2:] == ["Usage", "Completed"]
    assert entries[-2].event == Usage(7, 5)
    first, second = one.model.prompts[0], other.model.prompts[0]
    assert second.messages == (*first.messages, {"role": "assistant", "content": "one two"})
    assert second.max_output_tokens == first.max_output_tokens - 2
    (closed,) = one.conversations.answers.values()
    assert (closed.text, closed.whole, closed.message_id) == (TEXT, True, completed(entries).message_id)
    assert len(one.records.ended) == 1


async def test_when_the_first_word_came_outlives_its_replica(one: Chat, other: Chat) -> None:
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        taken_over = datetime.now(UTC)
        await killed(one, other)
        await other.resume(asker, turn.turn_id)
    record = await other.records.find(asker, turn.turn_id)
    assert record
    assert record.create_time < record.first_text_time < taken_over < record.end_time


async def test_a_session_that_does_not_answer_holds_no_turn_beyond_its_deadline(one: Chat, other: Chat) -> None:
    asker = an_asker()
    one.change(deadline_s=0.4)
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        other.conversations.open_now = asyncio.Event()  # never set
        await killed(one, other)
        entries = await other.resume(asker, turn.turn_id)
    end = entries[-1].event
    assert isinstance(end, Cancelled)
    assert end.cause is CancellationCause.DEADLINE
    assert [(closed.text, closed.whole) for closed in one.conversations.answers.values()] == [("one two", False)]


async def test_the_shown_sources_keep_their_numbers_whatever_is_found_now(one: Chat, other: Chat) -> None:
    shown = [a_passage("The answer is 42."), a_passage("No, it is 43.")]
    one.documents.passages = shown
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.documents.passages = [a_passage("New."), shown[1]]
        await killed(one, other)
        entries = await other.resume(asker, turn.turn_id)
    assert entries[1].event == Sources(tuple(shown), degraded=False)
    assert kinds(entries).count("Sources") == 1
    asked = other.model.prompts[0].messages[-2]["content"]
    assert "[1]" in asked
    assert "42" in asked
    assert "New." not in asked
    (closed,) = one.conversations.answers.values()
    assert [passage.id for passage in closed.passages] == [passage.id for passage in shown]


async def test_a_faq_is_still_one_when_another_replica_goes_on(one: Chat, other: Chat) -> None:
    shown = [a_faq(), a_passage("No, it is 43.")]
    one.documents.passages = shown
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.documents.passages = []  # deleted meanwhile
        await killed(one, other)
        entries = await other.resume(asker, turn.turn_id)
    assert entries[1].event == Sources(tuple(shown), degraded=False)
    assert (
        "the organisation's own answer:\n| Question: What is the answer?"
        in other.model.prompts[0].messages[-2]["content"]
    )
    (closed,) = one.conversations.answers.values()
    assert [passage.faq_id for passage in closed.passages] == [shown[0].faq_id, ""]


async def test_a_live_replica_keeps_its_turns(one: Chat, other: Chat) -> None:
    async with one.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 4)
        await one.ownership.beat()
        for _ in range(3):
            await other.ownership.beat()
        one.model.go_on.set()
        assert words([entry async for entry in turn.follow()]) == TEXT
    assert not other.model.prompts


async def test_after_an_outage_of_the_record_a_replica_only_renews(one: Chat, other: Chat) -> None:
    async with one.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.records.expire(one.replica_id)
        await other.ownership.beat()
        assert not other.turns.runs
        await one.ownership.beat()
        await other.ownership.beat()
        assert not other.turns.runs
        one.model.go_on.set()
        assert words([entry async for entry in turn.follow()]) == TEXT


async def test_a_replica_that_wakes_up_follows_instead_of_writing(one: Chat, other: Chat) -> None:
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.records.expire(one.replica_id)
        await other.ownership.beat()
        await other.ownership.beat()
        entries = await other.resume(asker, turn.turn_id)
        one.model.go_on.set()
        assert [entry async for entry in turn.follow()] == entries
    assert words(entries) == TEXT
    assert len(one.records.ended) == 1
    assert len(one.conversations.answers) == 1


async def test_a_turn_that_comes_back_before_its_loss_was_noticed_is_run_once(one: Chat, other: Chat) -> None:
    asker = an_asker()
    other.change(model=EchoModel(TEXT, pause_after=3))
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.records.expire(one.replica_id)
        await other.ownership.beat()
        await other.ownership.beat()
        await until(lambda: len(one.log.entries[turn.turn_id]) == 5)
        await one.ownership.beat()  # awake again, with the old run still waiting for its model
        await other.ownership.drain(0)
        await one.ownership.beat()
        await until(lambda: len(one.model.prompts) == 2)
        one.model.go_on.set()
        entries = [entry async for entry in turn.follow()]
    assert words(entries) == TEXT
    assert one.log.entries[turn.turn_id] == entries
    assert len(one.records.ended) == 1


async def test_two_that_write_at_once_are_told_apart_by_a_rewind(one: Chat, other: Chat) -> None:
    asker = an_asker()
    other.change(model=EchoModel(TEXT, pause_after=0))
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.records.expire(one.replica_id)
        await other.ownership.beat()
        await other.ownership.beat()
        await until(lambda: other.model.speaking)
        one.model.go_on.set()  # before the new one has written anything
        await until(lambda: len(one.log.entries[turn.turn_id]) > 4)
        other.model.go_on.set()
        entries = await other.resume(asker, turn.turn_id)
        assert [entry async for entry in turn.follow()] == entries
    assert words(entries) == TEXT
    assert len(one.records.ended) == 1


@pytest.mark.parametrize("lost", [1, 2, 4])
async def test_a_log_that_lost_its_end_is_rewound(one: Chat, other: Chat, lost: int) -> None:
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        seen = turn.last
        one.log.lose(lost)
        await killed(one, other)
        entries = await other.resume(asker, turn.turn_id, seen)
    assert isinstance(entries[0].event, Rewound)
    assert entries[0].sequence > seen
    assert kinds(entries)[1] == "Sources"
    assert words(entries) == TEXT
    everything = await one.log.read(turn.turn_id, 0)
    assert kinds(everything)[0] == "Started"
    assert everything[-len(entries) :] == entries


async def test_a_replica_that_followed_begins_a_lost_log_with_its_first_number(one: Chat, other: Chat) -> None:
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        first = turn.entries[0]
        following = await other.turns.resume(asker, turn.turn_id, 0)
        await until(lambda: following.live.last == 4)
        one.log.lose(4)
        await killed(one, other)
        followed = [entry async for entry in following.follow()]
        following.leave()
    assert one.log.entries[turn.turn_id][0] == first == followed[0]
    assert kinds(one.log.entries[turn.turn_id])[:3] == ["Started", "Rewound", "Sources"]
    assert words(followed[kinds(followed).index("Rewound") :]) == TEXT


async def test_a_replica_that_wakes_up_writes_nothing_into_a_store_that_was_started_anew(
    one: Chat, other: Chat
) -> None:
    """The store lost the very entries that would keep it out."""
    asker = an_asker()
    other.change(model=FakeModel(" and", " on", rest := asyncio.Event()))
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.records.expire(one.replica_id)
        await other.ownership.beat()
        await other.ownership.beat()
        await until(lambda: words(one.log.entries[turn.turn_id]) == "one two and on")
        kept = one.log.entries[turn.turn_id][:]
        one.log.lose(2)
        one.model.go_on.set()
        await until(lambda: not turn.runs_here)
        rest.set()
        entries = [entry async for entry in turn.follow()]
    assert words(entries) == "one two and on"
    assert entries[: len(kept)] == kept


async def test_a_run_that_can_not_write_where_the_last_one_stopped_rewinds(one: Chat, other: Chat) -> None:
    """The other one may still have written there."""
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.log.appending = asyncio.Event()
        appends = len(one.log.appends)
        await killed(one, other)
        await until(lambda: len(one.log.appends) > appends)
        one.log.down = True
        one.log.appending.set()
        await until(lambda: len(other.model.prompts) > 1)
        entries = await other.resume(asker, turn.turn_id, 4)
    assert isinstance(entries[0].event, Rewound)
    assert words(entries) == TEXT


async def test_words_that_only_readers_have_are_rewound(one: Chat, other: Chat) -> None:
    """The log was away, the turn went on from memory, and its replica dies before the log is healed."""
    asker = an_asker()
    one.change(model=EchoModel(TEXT, pause_after=4))
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last >= 3)
        one.log.down = True
        await until(lambda: words(turn.entries) == "one two three four")
        seen = turn.last
        one.kill()
        one.log.down = False
        await killed(one, other)
        entries = await other.resume(asker, turn.turn_id, seen)
    assert isinstance(entries[0].event, Rewound)
    assert words(entries) == TEXT


async def test_nothing_is_shown_that_neither_log_nor_record_knows_of(one: Chat) -> None:
    one.change(model=EchoModel(TEXT, pause_after=2))
    async with one.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.log.down = one.records.down = True
        one.model.go_on.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert turn.last == 4
        one.records.down = False
        assert words([entry async for entry in turn.follow()]) == TEXT


async def test_a_run_that_had_only_to_save_is_saved_with_the_same_words(one: Chat, other: Chat) -> None:
    asker = an_asker()
    one.change(model=EchoModel(TEXT), patience_s=30)
    one.conversations.closing_refusal = Unavailable(Reason.CONVERSATION_UNAVAILABLE, "down")
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: kinds(one.log.entries[turn.turn_id])[-1:] == ["Usage"])
        one.kill()
        one.conversations.closing_refusal = None
        await killed(one, other)
        entries = await other.resume(asker, turn.turn_id)
    assert words(entries) == TEXT
    assert not other.model.prompts
    assert isinstance(entries[-1].event, Completed)


# Handing over


async def test_a_stopping_replica_hands_its_turns_over(one: Chat, other: Chat) -> None:
    asker = an_asker()
    await other.ownership.beat()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        await one.ownership.drain(0)
        with pytest.raises(Unavailable) as refused:
            [_ async for _ in turn.follow(4)]
        assert refused.value.reason is Reason.SERVICE_UNAVAILABLE
        await other.ownership.beat()
        entries = await other.resume(asker, turn.turn_id)
    assert words(entries) == TEXT
    assert Rewound() not in [entry.event for entry in entries]


# Cancelling


async def test_a_turn_is_cancelled_from_another_replica(one: Chat, other: Chat) -> None:
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        cancelling = asyncio.create_task(other.turns.cancel(asker, turn.turn_id))
        await until(lambda: any(row.cancel_s for row in one.records.rows.values()))
        await one.ownership.beat()
        record = await cancelling
        entries = [entry async for entry in turn.follow()]
    assert one.model.speaking == 0
    end = entries[-1].event
    assert record.end == end
    assert isinstance(end, Cancelled)
    assert end.cause is CancellationCause.REQUESTED
    assert end.freed_after_ms < 250
    (closed,) = one.conversations.answers.values()
    assert (closed.text, closed.whole, closed.message_id) == ("one two", False, end.message_id)
    assert await other.turns.cancel(asker, turn.turn_id) == record


async def test_a_wish_to_cancel_outlives_the_replica(one: Chat, other: Chat) -> None:
    asker = an_asker()
    other.change(model=EchoModel(TEXT, pause_after=2))
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        one.kill()
        cancelling = asyncio.create_task(other.turns.cancel(asker, turn.turn_id))
        await until(lambda: any(row.cancel_s for row in one.records.rows.values()))
        await killed(one, other)
        record = await cancelling
    assert isinstance(record.end, Cancelled)
    assert [closed.text for closed in one.conversations.answers.values()] == ["one two"]


async def test_only_its_user_may_cancel_or_resume_a_turn(one: Chat) -> None:
    asker, stranger = an_asker(), an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        for call in (one.turns.cancel(stranger, turn.turn_id), one.turns.resume(stranger, turn.turn_id, 0)):
            with pytest.raises(NotFound) as refused:
                await call
            assert refused.value.reason is Reason.TURN_NOT_FOUND
        assert turn.wish is None
        one.model.go_on.set()


# Resuming


async def test_a_reader_goes_on_after_any_number_anywhere(one: Chat, other: Chat) -> None:
    asker = an_asker()
    async with one.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        readers = [
            asyncio.create_task(chat.resume(asker, turn.turn_id, after)) for chat in (one, other) for after in range(5)
        ]
        await until(lambda: turn.readers == 6)
        one.model.go_on.set()
        everything = [entry async for entry in turn.follow()]
        for number, entries in enumerate(await asyncio.gather(*readers)):
            assert entries == everything[number % 5 :]
    await one.settled()
    for after in range(len(everything) + 1):
        assert await other.resume(asker, turn.turn_id, after) == everything[after:]


async def test_a_number_that_was_never_given_out_is_refused(one: Chat, other: Chat) -> None:
    asker = an_asker()
    one.model.go_on.set()
    async with one.reading(asker, a_question()) as turn:
        entries = [entry async for entry in turn.follow()]
        for chat in (one, other):
            with pytest.raises(Invalid) as refused:
                await chat.resume(asker, turn.turn_id, len(entries) + 1)
            assert refused.value.reason is Reason.SEQUENCE_BEYOND_LOG


async def test_a_turn_whose_events_are_gone_can_not_be_resumed(one: Chat) -> None:
    asker = an_asker()
    one.model.go_on.set()
    async with one.reading(asker, a_question()) as turn:
        assert [entry async for entry in turn.follow()]
    await one.settled()
    one.log.entries.clear()
    with pytest.raises(WrongState) as refused:
        await one.resume(asker, turn.turn_id)
    assert refused.value.reason is Reason.TURN_NOT_RESUMABLE


# Readers and limits


async def test_a_reader_elsewhere_keeps_a_turn_running(one: Chat, other: Chat) -> None:
    asker, question = an_asker(), a_question(reader_grace_s=0.0)
    async with one.reading(asker, question) as turn:
        await until(lambda: turn.last == 4)
        resumed = asyncio.create_task(other.resume(asker, turn.turn_id))
        await until(lambda: one.log.readers)
    for _ in range(50):
        await asyncio.sleep(0)
    assert turn.wish is None
    one.model.go_on.set()
    assert words(await resumed) == TEXT


async def test_a_user_may_have_so_many_running_turns() -> None:
    chat = Chat(model=EchoModel(TEXT, pause_after=2), open_turns=2)
    asker = an_asker()
    async with chat.reading(asker, a_question()) as first, chat.reading(asker, a_question()) as second:
        await until(lambda: first.last == second.last == 4)
        _, refused = await chat.ask_until_failed(asker, a_question())
        assert isinstance(refused, Exhausted)
        assert (refused.reason, refused.facts["limit"]) == (Reason.TOO_MANY_TURNS, "2")
        chat.model.go_on.set()


async def test_a_reader_who_still_waits_for_a_number_counts() -> None:
    chat = Chat(model=EchoModel(TEXT, pause_after=2), open_readers=2)
    asker = an_asker()
    async with chat.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 4)
        ahead = asyncio.create_task(chat.turns.resume(asker, turn.turn_id, 5))
        await asyncio.sleep(0)
        with pytest.raises(Exhausted):
            await chat.turns.resume(asker, turn.turn_id, 0)
        chat.model.go_on.set()
        (await ahead).leave()
        (await chat.turns.resume(asker, turn.turn_id, 0)).leave()


async def test_a_user_may_have_so_many_readers() -> None:
    chat = Chat(model=EchoModel(TEXT, pause_after=2), open_readers=2)
    asker, question = an_asker(), a_question()
    async with chat.reading(asker, question) as turn, chat.reading(asker, question):
        await until(lambda: turn.last == 4)
        with pytest.raises(Refusal) as refused:
            await chat.turns.resume(asker, turn.turn_id, 0)
        assert (refused.value.reason, refused.value.facts["limit"]) == (Reason.TOO_MANY_READERS, "2")
        with pytest.raises(Refusal):
            chat.turns.start(asker, a_question())
        chat.model.go_on.set()
    assert chat.turns.start(asker, question)
