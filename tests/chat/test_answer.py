"""One run of a turn, on fakes: what it asks for, says and saves, and how it fails."""

import asyncio
from uuid import uuid4

import pytest

from services.chat.turn import (
    CancellationCause,
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
from services.shared.errors import Invalid, NotFound, Reason, Unavailable
from tests.chat.conftest import Chat, a_passage, a_question, an_asker, kinds, until, words
from tests.chat.fakes import Closed, completed


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
    assert kinds(entries) == ["Started", "TextDelta", "Usage", "Completed"]
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
    assert kinds(entries)[:3] == ["Started", "Rewound", "Sources"]
    assert words(entries) == "Here again."
    assert len(chat.conversations.questions) == 1


async def test_a_model_that_dies_is_waited_for_and_goes_on_from_its_words(chat: Chat) -> None:
    chat.model.script = ("Half an ", Unavailable(Reason.MODEL_UNAVAILABLE, "died"))
    chat.model.next_scripts = [(Unavailable(Reason.MODEL_UNAVAILABLE, "down"),), ("answer.",)]
    entries = await chat.ask(an_asker(), a_question())
    assert words(entries) == "Half an answer."
    assert kinds(entries)[-2:] == ["Usage", "Completed"]
    assert [prompt.messages[-1] for prompt in chat.model.prompts[1:]] == 2 * [
        {"role": "assistant", "content": "Half an "}
    ]
    assert entries[-2].event == Usage(7, 2)


@pytest.mark.parametrize("whole", [True, False])
async def test_the_first_end_of_a_turn_counts(chat: Chat, whole: bool) -> None:
    """Another run had closed it at session, and lost it before anybody heard."""
    asker, go_on = an_asker(), asyncio.Event()
    chat.model.script = ("These ", go_on, "words")
    async with chat.reading(asker, a_question()) as turn:
        await until(lambda: turn.last == 3)
        saved = chat.conversations.answers[turn.turn_id] = Closed(
            "Other words", whole, (a_passage(),), Usage(7, 9), uuid4()
        )
        go_on.set()
        entries = [entry async for entry in turn.follow()]
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    assert kinds(entries)[-6:-1] == ["Usage", "Rewound", "Sources", "TextDelta", "Usage"]
    assert words(entries[-4:]) == "Other words"
    assert entries[-4].event == Sources(saved.passages, degraded=False)
    end = entries[-1].event
    assert isinstance(end, Completed if whole else Cancelled)
    record = await chat.records.find(asker, turn.turn_id)
    assert record
    assert (record.end, record.usage) == (end, Usage(7, 9))
    assert end.message_id == record.message_id == saved.message_id


async def test_a_model_that_stays_away_costs_the_turn_its_deadline() -> None:
    chat = Chat(deadline_s=0.3)
    chat.model.script = ("Half an ", Unavailable(Reason.MODEL_UNAVAILABLE, "died"))
    chat.model.next_scripts = 9 * [(Unavailable(Reason.MODEL_UNAVAILABLE, "down"),)]
    entries = await chat.ask(an_asker(), a_question())
    assert words(entries) == "Half an "
    end = entries[-1].event
    assert isinstance(end, Cancelled)
    assert end.cause is CancellationCause.DEADLINE


async def test_a_stream_that_ends_without_a_word_or_a_reason_is_a_failure(chat: Chat) -> None:
    chat.model.script = ("",)
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


async def test_a_log_that_is_away_in_the_middle_gets_all_when_it_is_back(chat: Chat) -> None:
    rest = asyncio.Event()
    chat.model.script = ("one ", rest, "two ", "three")
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        chat.log.down = True
        rest.set()
        entries = [entry async for entry in turn.follow()]
        assert words(entries) == "one two three"
        assert kinds(entries)[-1] == "Completed"
        chat.log.down = False
        await chat.settled()
    assert chat.log.entries[turn.turn_id] == entries


async def test_a_log_that_lost_its_end_gets_it_again(chat: Chat) -> None:
    rest = asyncio.Event()
    chat.model.script = ("one ", rest, "two")
    async with chat.reading(an_asker(), a_question()) as turn:
        await until(lambda: turn.last == 3)
        chat.log.lose(2)
        rest.set()
        entries = [entry async for entry in turn.follow()]
    await chat.settled()
    assert chat.log.entries[turn.turn_id] == entries


async def test_a_defect_ends_the_turn_as_an_internal_failure(chat: Chat) -> None:
    chat.model.script = ("one ", ZeroDivisionError("oops"))
    entries, raised = await chat.ask_until_failed(an_asker(), a_question())
    assert isinstance(raised, TurnBroke)
    assert isinstance(entries[-1].event, Failed)
    assert entries[-1].event.reason is Reason.INTERNAL
    assert "oops" not in entries[-1].event.message


async def test_what_operators_count(chat: Chat) -> None:
    await chat.ask(an_asker(), a_question())
    assert len(chat.meter.first) == 1
    assert [(type(end), usage) for end, usage in chat.meter.ends] == [(Completed, Usage(7, 2))]
