"""The store suite for turns, on the fake and on real PostgreSQL: opening, history, closing."""

from uuid import uuid4

import pytest

from services.session.message import Citation, Page, Role, State, Usage
from services.session.turn import Answer
from services.shared.errors import Reason, Refusal
from tests.session.conftest import Record, a_colleague_of, an_owner


async def test_a_turn_saves_its_question_and_its_answer(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    opened = await record.ask(owner, made.id, "How long?", turn_id=turn_id)
    citations = (
        Citation(1, str(uuid4()), str(uuid4()), "handbook.pdf", 12, ("Leave", "Rules — כללים"), "Twenty days"),
        Citation(2, str(uuid4()), str(uuid4()), "notes.md", None, (), ""),
        Citation(3, "", faq_id := str(uuid4()), "How long is leave?", None, (), "Twenty days", faq_id),
    )
    given = Answer(turn_id, "Twenty days [1].", State.COMPLETE, citations, Usage(4_000_000_000, 17))
    saved = (await record.turns.close(owner, given)).answer
    assert saved
    page = await record.messages.page(owner, made.id, 0, 10)
    assert page == Page((opened.question, saved), more=False, tip_turn_id=turn_id)
    assert (opened.question.role, opened.question.text, opened.question.usage) == (Role.USER, "How long?", None)
    assert (saved.role, saved.turn_id, saved.conversation_id) == (Role.ASSISTANT, turn_id, made.id)
    assert (saved.text, saved.state, saved.citations, saved.usage) == (
        given.text,
        State.COMPLETE,
        citations,
        given.usage,
    )
    assert opened.question.create_time <= saved.create_time
    assert (await record.conversations.get(owner, made.id)).update_time == saved.create_time


async def test_the_first_question_titles_an_untitled_conversation(record: Record) -> None:
    owner = an_owner()
    untitled, titled = await record.conversation(owner), await record.conversation(owner, "Pay")
    for made in (untitled, titled):
        await record.ask(owner, made.id, "How long?\nPlease!")
        await record.ask(owner, made.id, "And then?")
    assert (await record.conversations.get(owner, untitled.id)).title == "How long?"
    assert (await record.conversations.get(owner, titled.id)).title == "Pay"


async def test_history_is_the_last_messages_of_ended_turns_oldest_first(record: Record) -> None:
    owner = an_owner()
    made, other = await record.conversation(owner), await record.conversation(owner)
    await record.exchange(owner, other.id, "elsewhere", "elsewhere")
    await record.exchange(owner, made.id, "q1", "a1")
    failed = await record.ask(owner, made.id, "q2 failed")
    await record.answer(owner, failed.question.turn_id, "", State.INTERRUPTED)
    await record.ask(owner, made.id, "q3 still runs")
    await record.exchange(owner, made.id, "q4", "a4")
    opened = await record.ask(owner, made.id, "q5")
    assert [message.text for message in opened.history] == ["q1", "a1", "q2 failed", "q4", "a4"]
    shorter = await record.ask(owner, made.id, "q6", history=3)
    assert [message.text for message in shorter.history] == ["q2 failed", "q4", "a4"]
    assert (await record.ask(owner, made.id, "q7", history=0)).history == ()


async def test_history_leaves_out_what_would_not_fit_in_a_response(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    await record.exchange(owner, made.id, "first", "x" * 1_500_000)
    await record.exchange(owner, made.id, "second", "y" * 1_500_000)
    opened = await record.ask(owner, made.id, "third")
    assert [message.text[:6] for message in opened.history] == ["second", "yyyyyy"]


async def test_opening_again_returns_the_same_question_and_history(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    await record.exchange(owner, made.id, "q1", "a1")
    running = await record.ask(owner, made.id, "runs beside")
    first = await record.ask(owner, made.id, "q2", turn_id=turn_id)
    await record.answer(owner, running.question.turn_id, "late")
    await record.answer(owner, turn_id, "a2")
    changed = (await record.conversations.get(owner, made.id)).update_time
    assert await record.ask(owner, made.id, "q2", turn_id=turn_id) == first
    assert (await record.conversations.get(owner, made.id)).update_time == changed


async def test_a_turn_id_with_another_question_is_refused(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    colleague = a_colleague_of(owner)
    made, other = await record.conversation(owner), await record.conversation(owner)
    theirs = await record.conversation(colleague)
    await record.ask(owner, made.id, "Question", turn_id=turn_id)
    for attempt in (
        record.ask(owner, made.id, "Another", turn_id=turn_id),
        record.ask(owner, other.id, "Question", turn_id=turn_id),
        record.ask(colleague, theirs.id, "Question", turn_id=turn_id),
    ):
        with pytest.raises(Refusal) as refused:
            await attempt
        assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert await record.said(owner, other.id) == await record.said(colleague, theirs.id) == []


async def test_turn_ids_of_two_organisations_do_not_meet(record: Record) -> None:
    turn_id = uuid4()
    for owner in (an_owner(), an_owner()):
        made = await record.conversation(owner)
        await record.ask(owner, made.id, "Question", turn_id=turn_id)
        await record.answer(owner, turn_id, "Answer")
        assert await record.said(owner, made.id) == ["Question", "Answer"]


async def test_closing_again_returns_the_saved_answer(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    turn_id = (await record.ask(owner, made.id, "Question")).question.turn_id
    first = await record.answer(owner, turn_id, "Ans", State.INTERRUPTED)
    assert first
    assert first.state is State.INTERRUPTED
    assert await record.answer(owner, turn_id, "Ans", State.INTERRUPTED) == first


@pytest.mark.parametrize("saved", ["Answer", ""])
async def test_a_closed_turn_takes_no_other_end(record: Record, saved: str) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    turn_id = (await record.ask(owner, made.id, "Question")).question.turn_id
    await record.answer(owner, turn_id, saved)
    for text, state in (("Other", State.COMPLETE), (saved, State.INTERRUPTED)):
        closed = await record.turns.close(owner, Answer(turn_id, text, state))
        assert closed.state is State.COMPLETE
        assert (closed.answer.text if closed.answer else "") == saved
    assert await record.said(owner, made.id) == ["Question", saved][: 2 if saved else 1]


async def test_a_turn_without_words_closes_without_an_answer(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    question = (await record.ask(owner, made.id, "Question")).question
    for _ in range(2):
        assert await record.answer(owner, question.turn_id, "", State.INTERRUPTED) is None
    assert await record.said(owner, made.id) == ["Question"]
    assert (await record.conversations.get(owner, made.id)).update_time == question.create_time


async def test_a_turn_that_was_never_opened_is_not_found(record: Record) -> None:
    with pytest.raises(Refusal) as refused:
        await record.answer(an_owner(), uuid4(), "Answer")
    assert refused.value.reason is Reason.TURN_NOT_FOUND


async def test_a_turn_of_a_deleted_conversation_saves_no_answer(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    turn_id = (await record.ask(owner, made.id, "Question")).question.turn_id
    await record.conversations.delete(owner, made.id)
    with pytest.raises(Refusal) as refused:
        await record.answer(owner, turn_id, "Answer")
    assert refused.value.reason is Reason.TURN_NOT_FOUND
    assert (await record.facts(owner))[-1][0] == "parley.session.v1.ConversationDeleted"
