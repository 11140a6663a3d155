"""What comes at the same time: copies, ends, deletions."""

import asyncio
from uuid import uuid4

from services.shared.errors import Reason, Refusal
from services.shared.postgres.database import Database
from tests.session.conftest import Record, an_owner, locked, waiting


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
    messages = (await record.messages.page(owner, made.id, 0, 100)).messages
    positions = [message.position for message in messages]
    assert len(positions) == 40
    assert positions == sorted(set(positions))
    places = {message.text: place for place, message in enumerate(messages)}
    assert all(places[f"q{number}"] < places[f"a{number}"] for number in range(20))
    assert [message.create_time for message in messages] == sorted(message.create_time for message in messages)


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
    messages = (await real_record.messages.page(owner, made.id, 0, 10)).messages
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
