"""One suite for the record of conversations: on the fake, and on real PostgreSQL.

The races at the end are PostgreSQL's alone: the fake can't be interrupted.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from services.session.conversation import create_conversation
from services.session.message import Page
from services.shared.errors import Reason, Refusal
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


async def test_messages_come_oldest_first_page_by_page(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    assert await record.messages.page(owner, made.id, 0, 2) == Page((), more=False, tip_turn_id=None)
    for number in range(3):
        await record.exchange(owner, made.id, f"q{number}", f"a{number}")
    seen, position, more = [], 0, True
    while more:
        page = await record.messages.page(owner, made.id, position, 2)
        assert len(page.messages) == 2
        seen += [message.text for message in page.messages]
        position, more = page.messages[-1].position, page.more
    assert seen == ["q0", "a0", "q1", "a1", "q2", "a2"]


async def test_page_keys_may_lie_at_the_ends_of_their_ranges(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert await record.conversations.page(owner, (first, made.id), 10) == []
    assert await record.conversations.page(owner, (last, made.id), 10) == [made]
    assert (await record.messages.page(owner, made.id, 2**63 - 1, 10)).messages == ()


async def test_a_page_of_long_messages_ends_early(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    for number in range(3):
        await record.exchange(owner, made.id, f"q{number}", "x" * 1_100_000)
    first = await record.messages.page(owner, made.id, 0, 100)
    assert (len(first.messages), first.more) == (4, True)
    rest = await record.messages.page(owner, made.id, first.messages[-1].position, 100)
    assert (len(rest.messages), rest.more) == (2, False)
