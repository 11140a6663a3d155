"""Turns on fakes: what is asked, joined, refused, stopped, and what is left when it is over."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from services.chat.turn import (
    Cancelled,
    Completed,
    Failed,
    FinishReason,
    Message,
    Role,
    Sources,
    TextDelta,
    TurnBroke,
    Usage,
)
from services.shared.errors import Invalid, NotFound, Reason, Refusal, Unavailable
from tests.chat.conftest import Chat, a_passage, a_question, an_asker, kinds, until, words
from tests.chat.fakes import FakeModel, completed


async def test_a_turn_is_numbered_events_and_a_saved_answer(chat: Chat) -> None:
    passage = a_passage()
    chat.documents.passages = [passage]
    chat.model.script = ("Forty", "-two [1].")
    entries = await chat.ask(an_asker(), a_question("What is the answer?"))
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    names = kinds(entries)
    assert (names[:2], names[-2:], set(names[2:-2])) == (["Started", "Sources"], ["Usage", "Completed"], {"TextDelta"})
    assert entries[1].event == Sources((passage,), degraded=False)
    assert words(entries) == "Forty-two [1]."
    (turn_id,) = chat.conversations.questions
    closed = chat.conversations.answers[turn_id]
    assert (closed.text, closed.whole, closed.passages) == ("Forty-two [1].", True, (passage,))
    assert closed.usage == entries[-2].event == Usage(7, 2)
    assert completed(entries).message_id == closed.message_id
    assert chat.records.ended == [(turn_id, entries[-1].event)]
    assert chat.log.entries[turn_id] == entries


async def test_a_turn_costs_two_calls_to_peers_and_one_to_close_it(chat: Chat) -> None:
    await chat.ask(an_asker(), a_question())
    assert (chat.conversations.calls, chat.documents.calls) == (2, 1)


async def test_conversation_and_documents_are_asked_at_the_same_time(chat: Chat) -> None:
    chat.conversations.open_now = asyncio.Event()
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: chat.documents.calls and chat.conversations.calls)
        chat.conversations.open_now.set()
        assert len([entry async for entry in turn.follow()]) >= 5


async def test_history_stands_before_the_question(chat: Chat) -> None:
    chat.conversations.history = [Message(Role.USER, "Hello"), Message(Role.ASSISTANT, "Hi")]
    await chat.ask(an_asker(), a_question("And now?"))
    assert [message["content"] for message in chat.model.prompts[0].messages[1:]] == ["Hello", "Hi", "And now?"]


async def test_without_documents_the_answer_comes_and_says_so(chat: Chat) -> None:
    chat.documents.refusal = Unavailable(Reason.SEARCH_UNAVAILABLE, "down")
    entries = await chat.ask(an_asker(), a_question())
    assert entries[1].event == Sources((), degraded=True)
    assert words(entries) == "The answer."


async def test_a_question_may_ask_not_to_search(chat: Chat) -> None:
    entries = await chat.ask(an_asker(), a_question(search=False))
    assert entries[1].event == Sources((), degraded=False)
    assert chat.documents.calls == 0


async def test_a_silent_model_completes_an_empty_answer(chat: Chat) -> None:
    chat.model.script = ("",)
    entries = await chat.ask(an_asker(), a_question())
    assert kinds(entries) == ["Started", "Sources", "Usage", "Completed"]
    assert completed(entries).message_id is None


async def test_an_answer_as_long_as_a_message_may_be_ends_there(chat: Chat) -> None:
    chat.model.script = ("x" * 150_000,) * 3
    entries = await chat.ask(an_asker(), a_question())
    assert len(words(entries)) == 200_000
    assert completed(entries).finish_reason is FinishReason.LENGTH
    assert all(len(entry.event.text.encode()) <= 4000 for entry in entries if isinstance(entry.event, TextDelta))
    assert chat.model.speaking == 0


# Joining


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


# Refusals before the turn


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


@pytest.mark.parametrize(
    "refusal",
    [NotFound(Reason.CONVERSATION_NOT_FOUND, "no"), Unavailable(Reason.CONVERSATION_UNAVAILABLE, "down")],
    ids=lambda refusal: refusal.reason,
)
async def test_a_refused_opening_leaves_nothing_behind(chat: Chat, refusal: Refusal) -> None:
    asker, question = an_asker(), a_question()
    chat.conversations.refusal = refusal
    entries, raised = await chat.ask_until_failed(asker, question)
    assert (entries, raised) == ([], refusal)
    await chat.settled()
    assert not chat.records.rows
    assert not chat.records.ended
    chat.conversations.refusal = None
    assert words(await chat.ask(asker, question))


async def test_without_the_log_nothing_is_started(chat: Chat) -> None:
    chat.log.down = True
    entries, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert not entries
    assert isinstance(raised, Unavailable)
    assert raised.reason is Reason.TURN_LOG_UNAVAILABLE
    assert not chat.conversations.questions
    assert not chat.records.rows


async def test_without_the_record_nothing_is_started(chat: Chat) -> None:
    chat.records.down = True
    _, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert isinstance(raised, Unavailable)
    assert raised.reason is Reason.RECORD_UNAVAILABLE
    assert not chat.conversations.questions


# Failures in the turn


async def test_without_the_model_the_turn_fails_and_the_question_stays(chat: Chat) -> None:
    chat.model.script = (Unavailable(Reason.MODEL_UNAVAILABLE, "down"),)
    entries, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert kinds(entries) == ["Started", "Sources", "Usage", "Failed"]
    assert entries[-1].event == Failed(Reason.MODEL_UNAVAILABLE, "down")
    assert isinstance(raised, Unavailable)
    assert raised.reason is Reason.MODEL_UNAVAILABLE
    assert raised.retry_after_s
    (turn_id,) = chat.conversations.questions
    assert not chat.conversations.answers
    assert chat.records.ended == [(turn_id, entries[-1].event)]


async def test_a_turn_that_failed_without_a_word_is_tried_again_by_the_same_request(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    chat.model.script = (Unavailable(Reason.MODEL_UNAVAILABLE, "down"),)
    await chat.ask_until_failed(asker, question)
    await chat.settled()
    chat.model.script = ("Here ", "again.")
    entries = await chat.ask(asker, question)
    assert kinds(entries)[0] == "Started"
    assert words(entries) == "Here again."
    assert len(chat.conversations.questions) == 1


async def test_a_model_that_dies_leaves_its_words_interrupted(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    chat.model.script = ("Half an ", Unavailable(Reason.MODEL_UNAVAILABLE, "died"))
    entries, raised = await chat.ask_until_failed(asker, question)
    assert words(entries) == "Half an "
    assert kinds(entries)[-2:] == ["Usage", "Failed"]
    assert isinstance(raised, Unavailable)
    (closed,) = chat.conversations.answers.values()
    assert (closed.text, closed.whole) == ("Half an ", False)
    await chat.settled()
    again, raised_again = await chat.ask_until_failed(asker, question)
    assert [entry.encoded for entry in again] == [entry.encoded for entry in entries]
    assert isinstance(raised_again, Unavailable)


async def test_a_stream_that_ends_without_a_reason_is_a_failure(chat: Chat) -> None:
    chat.model.finish_reason = None
    _, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert isinstance(raised, Unavailable)
    assert raised.reason is Reason.MODEL_UNAVAILABLE


async def test_a_prompt_that_the_model_finds_too_long_is_the_askers_fault(chat: Chat) -> None:
    chat.model.script = (Invalid(Reason.PROMPT_TOO_LONG, "too long"),)
    _, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert isinstance(raised, Invalid)
    assert raised.reason is Reason.PROMPT_TOO_LONG


async def test_an_answer_that_can_not_be_saved_is_a_failure(chat: Chat) -> None:
    chat.conversations.closing_refusal = Unavailable(Reason.CONVERSATION_UNAVAILABLE, "down")
    entries, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert kinds(entries)[-1] == "Failed"
    assert isinstance(raised, Unavailable)
    assert raised.reason is Reason.CONVERSATION_UNAVAILABLE


async def test_a_conversation_deleted_meanwhile_is_not_found(chat: Chat) -> None:
    chat.conversations.closing_refusal = NotFound(Reason.CONVERSATION_NOT_FOUND, "gone")
    entries, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert entries[-1].event == Failed(Reason.CONVERSATION_NOT_FOUND, "gone")
    assert isinstance(raised, NotFound)


async def test_a_log_lost_in_the_middle_ends_the_turn_and_keeps_the_words(chat: Chat) -> None:
    rest = asyncio.Event()
    chat.model.script = ("one ", rest, "two ", asyncio.Event())
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        chat.log.down = True
        rest.set()
        with pytest.raises(Unavailable) as raised:
            [_ async for _ in turn.follow()]
    assert raised.value.reason is Reason.TURN_LOG_UNAVAILABLE
    assert chat.model.speaking == 0
    (closed,) = chat.conversations.answers.values()
    assert (closed.text, closed.whole) == ("one two ", False)


async def test_a_defect_ends_the_turn_as_an_internal_failure(chat: Chat) -> None:
    chat.model.script = ("one ", ZeroDivisionError("oops"))
    entries, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert isinstance(raised, TurnBroke)
    assert isinstance(entries[-1].event, Failed)
    assert entries[-1].event.reason is Reason.INTERNAL
    assert "oops" not in entries[-1].event.message


# Stopping


async def test_when_the_last_reader_leaves_the_model_stops_and_the_words_are_kept(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    chat.model.script = ("one ", "two ", asyncio.Event())
    async with chat.reading(asker, question) as turn:
        await until(lambda: turn.last >= 3 and chat.model.speaking)
        async with chat.reading(asker, question):
            pass
        assert not turn.stop.is_set()
    await until(lambda: chat.model.speaking == 0)
    await chat.settled()
    (closed,) = chat.conversations.answers.values()
    assert "one two ".startswith(closed.text)
    assert not closed.whole
    ((_, end),) = chat.records.ended
    assert end == Cancelled(closed.message_id)
    again = await chat.ask(asker, question)
    assert kinds(again)[-2:] == ["Usage", "Cancelled"]
    assert words(again) == closed.text


async def test_a_reader_who_comes_back_within_the_grace_finds_the_turn_running() -> None:
    chat = Chat(reader_grace_s=30)
    asker, question, rest = an_asker(), a_question(), asyncio.Event()
    chat.model.script = ("one ", rest, "two")
    async with chat.reading(asker, question) as turn:
        await until(lambda: turn.last == 3)
    rest.set()
    assert words(await chat.ask(asker, question)) == "one two"


async def test_a_reader_who_leaves_during_the_opening_stops_the_turn_before_the_model(chat: Chat) -> None:
    chat.conversations.open_now = asyncio.Event()
    async with chat.reading(an_asker(), a_question()):
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


async def test_a_stopping_process_saves_the_words_of_running_turns() -> None:
    chat = Chat(reader_grace_s=30)
    chat.model.script = ("one ", asyncio.Event())
    async with chat.turns.running(), chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
    assert chat.turns.open_count == 0
    assert [closed.text for closed in chat.conversations.answers.values()] == ["one "]
    assert [type(end) for _, end in chat.records.ended] == [Cancelled]


async def test_readers_of_a_stopping_process_hear_how_the_turn_ended() -> None:
    chat = Chat(reader_grace_s=30)
    chat.model.script = ("one ", asyncio.Event())
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        await chat.turns.drain(0)
        entries = [entry async for entry in turn.follow()]
    assert kinds(entries)[-1] == "Cancelled"
    assert words(entries) == "one "


async def test_a_turn_that_ends_within_the_grace_is_left_alone() -> None:
    chat = Chat()
    more = asyncio.Event()
    chat.model.script = ("one ", more, "two")
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        draining = asyncio.create_task(chat.turns.drain(60))
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
        others = turn.numbered([TextDelta(" theirs"), Usage(7, 2), Completed(FinishReason.STOP)])
        await chat.log.append(turn.turn_id, others)
        rest.set()
        entries = [entry async for entry in turn.follow()]
    assert words(entries) == "mine theirs"
    assert not chat.conversations.answers


async def test_an_overdue_turn_is_run_again_and_its_old_run_can_not_end_it(chat: Chat) -> None:
    asker, question = an_asker(), a_question()
    late = Chat(log=chat.log, records=chat.records, model=FakeModel("late ", asyncio.Event()))
    async with late.reading(asker, question) as turn:
        await until(lambda: turn.last == 3)
        (row,) = chat.records.rows.values()
        row.deadline = row.deadline.replace(year=2020)
        entries = await chat.ask(asker, question)
        assert words(entries) == "The answer."
    await late.settled()
    assert [end for _, end in chat.records.ended] == [entries[-1].event]
    assert chat.log.entries[turn.turn_id] == entries


async def test_what_operators_count(chat: Chat) -> None:
    await chat.ask(an_asker(), a_question())
    assert len(chat.meter.first) == 1
    assert [(type(end), usage) for end, usage in chat.meter.ends] == [(Completed, Usage(7, 2))]
