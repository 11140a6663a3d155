"""Turns on fakes: what is asked, joined, refused, stopped, and what is left when it is over."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from services.chat.turn import (
    CancellationCause,
    Cancelled,
    Completed,
    Failed,
    FinishReason,
    Started,
    TextDelta,
    Usage,
)
from services.shared.errors import Invalid, NotFound, Reason, Refusal, Unavailable
from tests.chat.conftest import Chat, a_question, an_asker, entries_of, kinds, until, words
from tests.chat.fakes import completed


async def test_copies_of_a_request_are_one_turn(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    first, *others = await asyncio.gather(*(chat.ask(asker, question) for _ in range(100)))
    assert all(other == first for other in others)
    assert len(chat.conversations.answers) == 1
    assert len(chat.model.prompts) == 1


async def test_a_late_copy_gets_every_event_from_the_first(chat: Chat) -> None:
    asker, question, rest = an_asker(), a_question(), asyncio.Event()
    chat.model.script = ("one ", rest, "two")
    async with chat.reading(asker, question) as turn:
        await until(lambda: turn.last == 3)
        late = asyncio.create_task(chat.ask(asker, question))
        await until(lambda: turn.readers == 2)
        rest.set()
        assert await late == [entry async for entry in turn.follow()]


async def test_a_repeat_after_the_end_replays_the_turn(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    first = await chat.ask(asker, question)
    await chat.settled()
    again = await chat.ask(asker, question)
    assert [entry.encoded for entry in again] == [entry.encoded for entry in first]
    assert len(chat.model.prompts) == 1


async def test_a_copy_at_another_replica_follows_the_turn_live(chat: Chat) -> None:
    other = Chat(log=chat.log, records=chat.records)
    asker, question, rest = an_asker(), a_question(), asyncio.Event()
    chat.model.script = ("one ", rest, "two")
    async with chat.reading(asker, question) as turn:
        await until(lambda: turn.last == 3)
        async with other.reading(asker, question) as copy:
            await until(lambda: copy.last == 3)
            rest.set()
            copied = [entry.encoded async for entry in copy.follow()]
        assert copied == [entry.encoded async for entry in turn.follow()]
    assert not other.model.prompts
    await other.settled()


async def test_a_turn_whose_log_is_gone_still_has_its_end(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    first = await chat.ask(asker, question)
    await chat.settled()
    chat.log.entries.clear()
    again = await chat.ask(asker, question)
    assert kinds(again) == ["Started", "Usage", "Completed"]
    assert again[-1].event == first[-1].event


async def test_one_request_id_for_two_questions_is_refused(chat: Chat) -> None:
    asker, question = an_asker(), a_question("one")
    other = replace(question, text="two")
    async with chat.reading(asker, question) as turn:
        with pytest.raises(Refusal) as refused:
            chat.turns.start(asker, other)
        assert refused.value.reason is Reason.REQUEST_ID_REUSED
        assert words([entry async for entry in turn.follow()])
    await chat.settled()
    entries, refused_later = await chat.ask_until_failed(asker, other)
    assert not entries
    assert isinstance(refused_later, Refusal)
    assert refused_later.reason is Reason.REQUEST_ID_REUSED


async def test_request_ids_of_two_users_do_not_meet(chat: Chat) -> None:
    question = a_question()
    mine = an_asker()
    colleague = replace(mine, user_id=uuid4())
    await asyncio.gather(chat.ask(mine, question), chat.ask(colleague, question))
    assert len(chat.conversations.questions) == 2


async def test_an_unknown_model_is_refused_with_those_that_exist(chat: Chat) -> None:
    with pytest.raises(Invalid) as refused:
        chat.turns.start(an_asker(), a_question(model="gpt"))
    assert refused.value.reason is Reason.MODEL_UNKNOWN
    assert refused.value.facts["models"] == "chat,echo"
    assert not chat.records.rows


async def test_a_question_that_fits_no_prompt_is_refused_before_anything_is_stored(chat: Chat) -> None:
    with pytest.raises(Invalid) as refused:
        chat.turns.start(an_asker(), a_question("long " * 3000))
    assert refused.value.reason is Reason.PROMPT_TOO_LONG
    assert not chat.records.rows


async def test_a_refused_opening_leaves_nothing_behind(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    refusal = chat.conversations.refusal = NotFound(Reason.CONVERSATION_NOT_FOUND, "no")
    entries, raised = await chat.ask_until_failed(asker, question)
    assert (entries, raised) == ([], refusal)
    await chat.settled()
    assert not chat.records.rows
    assert not chat.records.ended
    chat.conversations.refusal = None
    assert words(await chat.ask(asker, question))


async def test_a_repeat_opens_the_same_turn_when_nobody_knows_whether_it_was_opened(chat: Chat) -> None:
    """Session saved the question, or did not; of one turn it saves only one."""
    asker, question = an_asker(), a_question()
    refusal = chat.conversations.refusal = Unavailable(Reason.CONVERSATION_UNAVAILABLE, "down")
    entries, raised = await chat.ask_until_failed(asker, question)
    assert (entries, raised) == ([], refusal)
    await chat.settled()
    ((turn_id, end),) = chat.records.ended
    assert end == Failed(Reason.CONVERSATION_UNAVAILABLE, "down")
    chat.conversations.refusal = None
    assert words(await chat.ask(asker, question)) == "The answer."
    assert [(turn_id, Completed)] == [(ended, type(end)) for ended, end in chat.records.ended[1:]]


async def test_without_the_log_the_turn_runs_and_says_that_it_can_not_be_resumed(chat: Chat) -> None:
    chat.log.down = True
    entries = await chat.ask(an_asker(), a_question())
    started = entries[0].event
    assert isinstance(started, Started)
    assert not started.resumable
    assert words(entries) == "The answer."
    assert completed(entries).message_id


async def test_without_the_record_nothing_is_started(chat: Chat) -> None:
    chat.records.down = True
    _, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert isinstance(raised, Unavailable)
    assert raised.reason is Reason.RECORD_UNAVAILABLE
    assert not chat.conversations.questions


async def test_without_a_grace_the_model_stops_when_the_last_reader_leaves_and_the_words_are_kept(chat: Chat) -> None:
    asker, question = an_asker(), a_question(reader_grace_s=0.0)
    chat.model.script = ("one ", "two ", asyncio.Event())
    async with chat.reading(asker, question) as turn:
        await until(lambda: turn.last >= 3 and chat.model.speaking)
        async with chat.reading(asker, question):
            pass
        assert turn.wish is None
    await until(lambda: chat.model.speaking == 0)
    await chat.settled()
    (closed,) = chat.conversations.answers.values()
    assert "one two ".startswith(closed.text)
    assert not closed.whole
    ((_, end),) = chat.records.ended
    assert isinstance(end, Cancelled)
    assert (end.message_id, end.cause) == (closed.message_id, CancellationCause.NO_READER)
    again = await chat.ask(asker, question)
    assert kinds(again)[-2:] == ["Usage", "Cancelled"]
    assert words(again) == closed.text


async def test_a_reader_who_comes_back_within_the_grace_finds_the_turn_running(chat: Chat) -> None:
    asker, question, rest = an_asker(), a_question(), asyncio.Event()
    chat.model.script = ("one ", rest, "two")
    async with chat.reading(asker, question) as turn:
        await until(lambda: turn.last == 3)
    rest.set()
    assert words(await chat.ask(asker, question)) == "one two"


async def test_a_reader_who_leaves_during_the_opening_stops_the_turn_before_the_model(chat: Chat) -> None:
    chat.conversations.open_now = asyncio.Event()
    async with chat.reading(an_asker(), a_question(reader_grace_s=0.0)):
        await until(lambda: chat.conversations.calls)
    await asyncio.sleep(0)
    chat.conversations.open_now.set()
    await chat.settled()
    assert not chat.model.prompts
    assert [type(end) for _, end in chat.records.ended] == [Cancelled]
    assert [(closed.text, closed.whole) for closed in chat.conversations.answers.values()] == [("", False)]


async def test_a_turn_past_its_deadline_is_cancelled() -> None:
    chat = Chat(deadline_s=0.05)
    chat.model.script = ("one ", asyncio.Event())
    entries = await chat.ask(an_asker(), a_question())
    assert kinds(entries)[-2:] == ["Usage", "Cancelled"]
    assert words(entries) == "one "
    assert chat.model.speaking == 0


async def test_a_stopping_process_without_another_replica_saves_the_words_of_running_turns() -> None:
    chat = Chat()
    chat.model.script = ("one ", asyncio.Event())
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        await chat.ownership.drain(0)
    assert chat.turns.open_count == 0
    assert [closed.text for closed in chat.conversations.answers.values()] == ["one "]
    ((_, end),) = chat.records.ended
    assert isinstance(end, Cancelled)
    assert end.cause is CancellationCause.STOPPED


async def test_readers_of_a_stopping_process_hear_how_the_turn_ended() -> None:
    chat = Chat()
    chat.model.script = ("one ", asyncio.Event())
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        await chat.ownership.drain(0)
        entries = [entry async for entry in turn.follow()]
    assert kinds(entries)[-1] == "Cancelled"
    assert words(entries) == "one "


async def test_a_turn_that_ends_within_the_grace_is_left_alone() -> None:
    chat = Chat()
    more = asyncio.Event()
    chat.model.script = ("one ", more, "two")
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        draining = asyncio.create_task(chat.ownership.drain(60))
        more.set()
        await draining
        entries = [entry async for entry in turn.follow()]
    assert kinds(entries)[-1] == "Completed"
    assert words(entries) == "one two"


async def test_a_replica_that_lost_its_turn_follows_the_one_that_has_it(chat: Chat) -> None:
    asker, question, rest = an_asker(), a_question(), asyncio.Event()
    chat.model.script = ("mine", rest, " too late")
    async with chat.reading(asker, question) as turn:
        await until(lambda: turn.last == 3)
        (row,) = chat.records.rows.values()
        row.turn = replace(row.turn, run_id=uuid4())
        others = entries_of(turn.turn_id, 4, TextDelta(" theirs"), Usage(7, 2), Completed(FinishReason.STOP))
        await chat.log.append(turn.turn_id, 3, others)
        rest.set()
        entries = [entry async for entry in turn.follow()]
    assert words(entries) == "mine theirs"
    assert not chat.conversations.answers
