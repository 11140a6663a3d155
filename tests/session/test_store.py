"""One suite for the record of conversations: on the fake, and on real PostgreSQL.

The races at the end are PostgreSQL's alone: the fake can't be interrupted.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.session.conversation import create_conversation
from services.session.message import Citation, Role, State, Usage
from services.session.turn import Answer, close_turn
from services.shared.errors import Reason, Refusal
from services.shared.postgres.database import Database
from tests.session.conftest import Record, a_colleague_of, an_owner


async def test_a_conversation_comes_back_as_it_was_made(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner, "Leave — חופשה")
    assert made.title == "Leave — חופשה"
    assert made.create_time == made.update_time
    assert await record.conversations.get(owner, made.id) == made


async def test_a_repeated_request_makes_one_conversation(record: Record) -> None:
    owner, request_id = an_owner(), uuid4()
    copies = [create_conversation(record.conversations, owner, request_id, "Leave") for _ in range(5)]
    assert len({made.id for made in await asyncio.gather(*copies)}) == 1
    assert len(await record.facts(owner)) == 1


async def test_a_repeated_request_finds_its_conversation_after_a_rename(record: Record) -> None:
    owner, request_id = an_owner(), uuid4()
    made = await create_conversation(record.conversations, owner, request_id, "Leave")
    await record.conversations.rename(owner, made.id, "Holidays")
    again = await create_conversation(record.conversations, owner, request_id, "Leave")
    assert (again.id, again.title) == (made.id, "Holidays")


async def test_a_request_id_with_another_title_is_refused(record: Record) -> None:
    owner, request_id = an_owner(), uuid4()
    await create_conversation(record.conversations, owner, request_id, "Leave")
    with pytest.raises(Refusal) as refused:
        await create_conversation(record.conversations, owner, request_id, "Pay")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_request_ids_of_two_users_do_not_meet(record: Record) -> None:
    owner, request_id = an_owner(), uuid4()
    mine = await create_conversation(record.conversations, owner, request_id, "Mine")
    theirs = await create_conversation(record.conversations, a_colleague_of(owner), request_id, "Theirs")
    assert mine.id != theirs.id


async def test_conversations_come_last_changed_first_page_by_page(record: Record) -> None:
    owner = an_owner()
    made = [await record.conversation(owner, str(number)) for number in range(5)]
    await record.ask(owner, made[1].id, "And now?")
    seen, after = [], None
    while page := await record.conversations.page(owner, after, 2):
        seen += [found.title for found in page]
        after = page[-1].update_time, page[-1].id
    assert seen == ["1", "4", "3", "2", "0"]


async def test_nobody_else_sees_or_changes_a_conversation(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner, "Mine")
    turn_id = await record.exchange(owner, made.id, "Question", "Answer")
    open_turn_id = (await record.ask(owner, made.id, "Open question")).question.turn_id
    for stranger in (a_colleague_of(owner), replace(owner, tenant_id=uuid4()), an_owner()):
        for attempt in (
            record.conversations.get(stranger, made.id),
            record.conversations.rename(stranger, made.id, "Theirs"),
            record.conversations.delete(stranger, made.id),
            record.messages.page(stranger, made.id, 0, 10),
            record.ask(stranger, made.id, "Question"),
            record.ask(stranger, made.id, "Question", turn_id=turn_id),
        ):
            with pytest.raises(Refusal) as refused:
                await attempt
            assert refused.value.reason is Reason.CONVERSATION_NOT_FOUND
        for closed_id in (turn_id, open_turn_id):
            with pytest.raises(Refusal) as refused:
                await record.answer(stranger, closed_id, "Answer")
            assert refused.value.reason is Reason.TURN_NOT_FOUND
        assert await record.conversations.page(stranger, None, 10) == []
    assert await record.said(owner, made.id) == ["Question", "Answer", "Open question"]


async def test_a_deleted_conversation_is_gone_with_its_messages(record: Record) -> None:
    owner = an_owner()
    made, kept = await record.conversation(owner), await record.conversation(owner)
    await record.exchange(owner, made.id, "Question", "Answer")
    await record.exchange(owner, kept.id, "Kept question", "Kept answer")
    await record.conversations.delete(owner, made.id)
    for attempt in (
        record.conversations.get(owner, made.id),
        record.conversations.delete(owner, made.id),
        record.messages.page(owner, made.id, 0, 10),
    ):
        with pytest.raises(Refusal) as refused:
            await attempt
        assert refused.value.reason is Reason.CONVERSATION_NOT_FOUND
    assert await record.said(owner, kept.id) == ["Kept question", "Kept answer"]


async def test_a_turn_saves_its_question_and_its_answer(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    opened = await record.ask(owner, made.id, "How long?", turn_id=turn_id)
    citations = (
        Citation(1, str(uuid4()), str(uuid4()), "handbook.pdf", 12, ("Leave", "Rules — כללים"), "Twenty days"),
        Citation(2, str(uuid4()), str(uuid4()), "notes.md", None, (), ""),
    )
    given = Answer(turn_id, "Twenty days [1].", State.COMPLETE, citations, Usage(4_000_000_000, 17))
    saved = await close_turn(record.turns, owner, given)
    assert saved
    messages, more = await record.messages.page(owner, made.id, 0, 10)
    assert (messages, more) == ([opened.question, saved], False)
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


async def test_each_change_is_told_once(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    for _ in range(2):
        opened = await record.ask(owner, made.id, "Question", turn_id=turn_id)
    for _ in range(2):
        answer = await record.answer(owner, turn_id, "Answer")
    assert answer
    await record.conversations.delete(owner, made.id)
    whose = {"tenant_id": str(owner.tenant_id), "user_id": str(owner.user_id), "conversation_id": str(made.id)}
    assert await record.facts(owner) == [
        ("parley.session.v1.ConversationCreated", whose),
        (
            "parley.session.v1.MessageAppended",
            {**whose, "message_id": str(opened.question.id), "turn_id": str(turn_id)},
        ),
        ("parley.session.v1.MessageAppended", {**whose, "message_id": str(answer.id), "turn_id": str(turn_id)}),
        ("parley.session.v1.ConversationDeleted", whose),
    ]


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
        with pytest.raises(Refusal) as refused:
            await record.answer(owner, turn_id, text, state)
        assert refused.value.reason is Reason.TURN_ALREADY_CLOSED
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


async def test_messages_come_oldest_first_page_by_page(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    assert await record.messages.page(owner, made.id, 0, 2) == ([], False)
    for number in range(3):
        await record.exchange(owner, made.id, f"q{number}", f"a{number}")
    seen, position, more = [], 0, True
    while more:
        page, more = await record.messages.page(owner, made.id, position, 2)
        assert len(page) == 2
        seen += [message.text for message in page]
        position = page[-1].position
    assert seen == ["q0", "a0", "q1", "a1", "q2", "a2"]


async def test_page_keys_may_lie_at_the_ends_of_their_ranges(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert await record.conversations.page(owner, (first, made.id), 10) == []
    assert await record.conversations.page(owner, (last, made.id), 10) == [made]
    assert await record.messages.page(owner, made.id, 2**63 - 1, 10) == ([], False)


async def test_a_page_of_long_messages_ends_early(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    for number in range(3):
        await record.exchange(owner, made.id, f"q{number}", "x" * 1_100_000)
    first, more = await record.messages.page(owner, made.id, 0, 100)
    assert (len(first), more) == (4, True)
    rest, more = await record.messages.page(owner, made.id, first[-1].position, 100)
    assert (len(rest), more) == (2, False)


async def test_simultaneous_copies_open_one_turn(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    await record.exchange(owner, made.id, "q1", "a1")
    opened = await asyncio.gather(*(record.ask(owner, made.id, "q2", turn_id=turn_id) for _ in range(20)))
    assert all(copy == opened[0] for copy in opened)
    assert await record.said(owner, made.id) == ["q1", "a1", "q2"]
    assert len(await record.facts(owner)) == 4


async def test_simultaneous_copies_with_two_texts_open_one_turn(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    asked = (record.ask(owner, made.id, f"text {number % 2}", turn_id=turn_id) for number in range(8))
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refusal)]
    assert len(refused) == 4
    assert {refusal.reason for refusal in refused} == {Reason.REQUEST_ID_REUSED}
    assert len(await record.said(owner, made.id)) == 1


async def test_simultaneous_ends_save_one_answer(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    turn_id = (await record.ask(owner, made.id, "Question")).question.turn_id
    answers = await asyncio.gather(*(record.answer(owner, turn_id, "Answer") for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert await record.said(owner, made.id) == ["Question", "Answer"]
    assert len(await record.facts(owner)) == 3


async def test_simultaneous_turns_keep_question_before_answer(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    await asyncio.gather(*(record.exchange(owner, made.id, f"q{number}", f"a{number}") for number in range(20)))
    messages, _ = await record.messages.page(owner, made.id, 0, 100)
    positions = [message.position for message in messages]
    assert len(positions) == 40
    assert positions == sorted(set(positions))
    places = {message.text: place for place, message in enumerate(messages)}
    assert all(places[f"q{number}"] < places[f"a{number}"] for number in range(20))
    assert [message.create_time for message in messages] == sorted(message.create_time for message in messages)


@asynccontextmanager
async def locked(database: Database, conversation_id: UUID) -> AsyncIterator[asyncpg.Connection]:
    """The conversation's row is locked until the body ends, so that statements begun inside all wait in it."""
    connection = await database.connect()
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM conversations WHERE id = $1 FOR UPDATE", conversation_id)
            yield connection
    finally:
        await connection.close()


async def waiting(connection: asyncpg.Connection, statements: int) -> None:
    """Return when so many statements wait for a lock in this database."""
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"""
    async with asyncio.timeout(10):
        while await connection.fetchval(query) < statements:
            # pg_stat_activity is frozen within a transaction unless it is told otherwise.
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.005)


async def test_a_copy_that_began_before_the_other_was_saved_finds_it(real_record: Record, database: Database) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await real_record.conversation(owner)
    async with locked(database, made.id) as lock:
        opens = asyncio.gather(*(real_record.ask(owner, made.id, "Q", turn_id=turn_id) for _ in range(3)))
        await waiting(lock, 3)
    assert len({opened.question.id for opened in await opens}) == 1
    async with locked(database, made.id) as lock:
        closes = asyncio.gather(*(real_record.answer(owner, turn_id, "A") for _ in range(3)))
        await waiting(lock, 3)
    assert len({answer.id for answer in await closes if answer}) == 1
    messages, _ = await real_record.messages.page(owner, made.id, 0, 10)
    assert [(message.text, message.position) for message in messages] == [("Q", 1), ("A", 2)]


async def test_an_answer_that_meets_the_deletion_is_refused_whole(real_record: Record, database: Database) -> None:
    owner = an_owner()
    made = await real_record.conversation(owner)
    turn_id = (await real_record.ask(owner, made.id, "Question")).question.turn_id
    async with locked(database, made.id) as lock:
        delete = asyncio.create_task(real_record.conversations.delete(owner, made.id))
        await waiting(lock, 1)
        others = asyncio.gather(
            real_record.answer(owner, turn_id, "Answer"),
            real_record.ask(owner, made.id, "Next"),
            return_exceptions=True,
        )
        await waiting(lock, 3)
    await delete
    assert [refusal.reason for refusal in await others] == [Reason.TURN_NOT_FOUND, Reason.CONVERSATION_NOT_FOUND]
    assert [name for name, _ in await real_record.facts(owner)] == [
        "parley.session.v1.ConversationCreated",
        "parley.session.v1.MessageAppended",
        "parley.session.v1.ConversationDeleted",
    ]


async def test_answers_and_deletions_never_deadlock(real_record: Record) -> None:
    owner = an_owner()
    for _ in range(10):
        made = await real_record.conversation(owner)
        turns = [(await real_record.ask(owner, made.id, "Q")).question.turn_id for _ in range(4)]
        results = await asyncio.gather(
            *(real_record.answer(owner, turn_id, "A") for turn_id in turns),
            real_record.conversations.delete(owner, made.id),
            *(real_record.ask(owner, made.id, "Next") for _ in range(2)),
            return_exceptions=True,
        )
        assert not [error for error in results if isinstance(error, Exception) and not isinstance(error, Refusal)]
