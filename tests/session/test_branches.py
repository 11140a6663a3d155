"""Branches of a conversation: one suite on the fake and on real PostgreSQL; the races at the end are PostgreSQL's."""

import asyncio
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from services.session.conversation import Owner
from services.session.message import Message, State
from services.session.store import StoredConversations, StoredMessages, StoredTurns
from services.shared.errors import Reason, Refusal
from services.shared.postgres.database import Database
from services.shared.postgres.migrations import apply_migrations
from stack.mesh import PROJECT
from tests.session.conftest import Record, a_colleague_of, an_owner, locked, waiting


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [message.text for message in messages]


async def placed(record: Record, owner: Owner, conversation_id: UUID, turn_id: UUID) -> tuple[UUID | None, list[UUID]]:
    """The parent and the siblings that the messages of a turn name."""
    page = await record.messages.page(owner, conversation_id, 0, 1000, turn_id)
    places = {
        (message.parent_turn_id, message.sibling_turn_ids) for message in page.messages if message.turn_id == turn_id
    }
    ((parent_turn_id, sibling_turn_ids),) = places
    return parent_turn_id, list(sibling_turn_ids)


async def test_an_edited_question_begins_a_branch_and_the_old_one_stays(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    first = await record.exchange(owner, made.id, "q1", "a1")
    second = await record.exchange(owner, made.id, "q2", "a2")
    await record.exchange(owner, made.id, "q3", "a3")
    edited = await record.exchange(owner, made.id, "q2 edited", "a2 edited", replaces=second)
    assert await record.said(owner, made.id) == ["q1", "a1", "q2 edited", "a2 edited"]
    assert await record.said(owner, made.id, second) == ["q1", "a1", "q2", "a2", "q3", "a3"]
    assert await placed(record, owner, made.id, second) == (first, [second, edited])
    assert await placed(record, owner, made.id, edited) == (first, [second, edited])
    assert await placed(record, owner, made.id, first) == (None, [first])


async def test_the_same_question_can_be_answered_again_and_again(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    before = await record.exchange(owner, made.id, "before", "yes")
    first = await record.exchange(owner, made.id, "q", "a1")
    second = await record.exchange(owner, made.id, "q", "a2", replaces=first)
    third = await record.exchange(owner, made.id, "q", "a3", replaces=second)
    for turn_id, answer in ((first, "a1"), (second, "a2"), (third, "a3")):
        assert await record.said(owner, made.id, turn_id) == ["before", "yes", "q", answer]
        assert await placed(record, owner, made.id, turn_id) == (before, [first, second, third])


async def test_the_first_question_can_be_replaced(record: Record) -> None:
    owner = an_owner()
    made, other = await record.conversation(owner), await record.conversation(owner)
    await record.exchange(owner, other.id, "elsewhere", "elsewhere")
    first = await record.exchange(owner, made.id, "q1", "a1")
    opened = await record.ask(owner, made.id, "q1 edited", replaces=first)
    assert opened.history == ()
    assert opened.question.parent_turn_id is None
    assert opened.question.sibling_turn_ids == (first, opened.question.turn_id)
    await record.exchange(owner, made.id, "q2", "a2")
    assert await record.said(owner, made.id) == ["q1 edited", "q2", "a2"]
    assert await record.said(owner, made.id, first) == ["q1", "a1"]
    assert (await record.conversations.get(owner, made.id)).title == "q1"


async def test_a_question_without_a_place_goes_on_with_the_branch_of_the_last_one(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    first = await record.exchange(owner, made.id, "q1", "a1")
    second = await record.exchange(owner, made.id, "q2", "a2")
    await record.exchange(owner, made.id, "q2'", "a2'", replaces=second)
    opened = await record.ask(owner, made.id, "q3'")
    assert texts(opened.history) == ["q1", "a1", "q2'", "a2'"]
    opened = await record.ask(owner, made.id, "q3", follows=second)
    assert texts(opened.history) == ["q1", "a1", "q2", "a2"]
    opened = await record.ask(owner, made.id, "q4")  # q3 still runs
    assert texts(opened.history) == ["q1", "a1", "q2", "a2"]
    assert await record.said(owner, made.id) == ["q1", "a1", "q2", "a2", "q3", "q4"]
    opened = await record.ask(owner, made.id, "q2''", follows=first)
    assert texts(opened.history) == ["q1", "a1"]
    assert len(opened.question.sibling_turn_ids) == 3


async def test_below_a_turn_a_branch_goes_on_to_what_was_asked_last(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    root = await record.exchange(owner, made.id, "root", "r")
    left = await record.exchange(owner, made.id, "left", "l")
    right = await record.exchange(owner, made.id, "right", "r", replaces=left)
    assert await record.said(owner, made.id, root) == ["root", "r", "right", "r"]
    await record.exchange(owner, made.id, "left end", "l", follows=left)
    other_root = await record.exchange(owner, made.id, "other root", "o", replaces=root)
    assert await record.said(owner, made.id, root) == ["root", "r", "left", "l", "left end", "l"]
    assert await record.said(owner, made.id, right) == ["root", "r", "right", "r"]
    assert await record.said(owner, made.id) == await record.said(owner, made.id, other_root) == ["other root", "o"]


async def test_history_gives_each_answer_after_its_question(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    first = (await record.ask(owner, made.id, "q1")).question.turn_id
    second = (await record.ask(owner, made.id, "q2")).question.turn_id
    await record.answer(owner, second, "a2")
    await record.answer(owner, first, "a1")
    assert texts((await record.ask(owner, made.id, "q3")).history) == ["q1", "a1", "q2", "a2"]
    assert texts((await record.ask(owner, made.id, "q4", history=3)).history) == ["a1", "q2", "a2"]
    assert await record.said(owner, made.id) == ["q1", "q2", "a2", "a1", "q3", "q4"]


async def test_a_turn_of_any_branch_can_be_closed(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    old = (await record.ask(owner, made.id, "old")).question.turn_id
    new = (await record.ask(owner, made.id, "new", replaces=old)).question.turn_id
    answer = await record.answer(owner, old, "late", State.INTERRUPTED)
    assert answer
    assert (answer.parent_turn_id, answer.sibling_turn_ids) == (None, (old, new))
    assert await record.answer(owner, old, "late", State.INTERRUPTED) == answer
    assert await record.said(owner, made.id) == ["new"]
    assert await record.said(owner, made.id, old) == ["old", "late"]


async def test_opening_again_returns_the_same_place_and_history_whatever_happened_meanwhile(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    await record.exchange(owner, made.id, "q1", "a1")
    second = await record.exchange(owner, made.id, "q2", "a2")
    running = await record.ask(owner, made.id, "runs beside")
    for place in ({}, {"follows": running.question.turn_id}, {"replaces": second}):
        turn_id = uuid4()
        first = await record.ask(owner, made.id, "again", turn_id=turn_id, history=3, **place)
        newer = await record.exchange(owner, made.id, "newer", "newer")
        await record.exchange(owner, made.id, "beside", "beside", replaces=newer)
        await record.answer(owner, running.question.turn_id, "late")
        assert await record.ask(owner, made.id, "again", turn_id=turn_id, history=3, **place) == first
        assert (await record.ask(owner, made.id, "again", turn_id=turn_id, history=3)).history == first.history


async def test_a_turn_id_with_another_place_is_refused(record: Record) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await record.conversation(owner)
    first = await record.exchange(owner, made.id, "q1", "a1")
    second = await record.exchange(owner, made.id, "q2", "a2")
    await record.ask(owner, made.id, "q", turn_id=turn_id, follows=first)
    for place in ({"follows": second}, {"replaces": first}, {"follows": uuid4()}):
        with pytest.raises(Refusal) as refused:
            await record.ask(owner, made.id, "q", turn_id=turn_id, **place)
        assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_only_a_turn_of_the_same_conversation_can_be_followed_replaced_or_listed(record: Record) -> None:
    owner = an_owner()
    colleague, stranger = a_colleague_of(owner), an_owner()
    made, other = await record.conversation(owner), await record.conversation(owner)
    foreign = [await record.exchange(owner, other.id, "elsewhere", "elsewhere"), uuid4()]
    for whose in (colleague, stranger):
        theirs = await record.conversation(whose)
        foreign.append(await record.exchange(whose, theirs.id, "theirs", "theirs"))
    for said in ([], ["q", "a"]):
        facts = await record.facts(owner)
        for turn_id in foreign:
            for attempt in (
                record.ask(owner, made.id, "q", follows=turn_id),
                record.ask(owner, made.id, "q", replaces=turn_id),
                record.messages.page(owner, made.id, 0, 10, turn_id),
            ):
                with pytest.raises(Refusal) as refused:
                    await attempt
                assert refused.value.reason is Reason.TURN_NOT_FOUND
        assert await record.said(owner, made.id) == said
        assert await record.facts(owner) == facts
        await record.exchange(owner, made.id, "q", "a")


async def test_pages_stay_in_their_branch_while_others_are_asked(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    turns = [await record.exchange(owner, made.id, f"q{number}", f"a{number}") for number in range(3)]
    first = await record.messages.page(owner, made.id, 0, 3)
    await record.exchange(owner, made.id, "q1 edited", "a1 edited", replaces=turns[1])
    await record.exchange(owner, made.id, "q3", "a3", follows=turns[2])
    after = first.messages[-1].position
    second = await record.messages.page(owner, made.id, after, 4, first.tip_turn_id)
    assert (texts(second.messages), second.more) == (["a1", "q2", "a2", "q3"], True)
    await record.exchange(owner, made.id, "q3 edited", "a3 edited", replaces=second.tip_turn_id)
    rest = await record.messages.page(owner, made.id, second.messages[-1].position, 4, second.tip_turn_id)
    assert (texts(rest.messages), rest.more) == (["a3"], False)


async def test_a_late_answer_is_not_skipped_by_a_page_of_a_younger_branch(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    shared = (await record.ask(owner, made.id, "shared")).question.turn_id
    await record.exchange(owner, made.id, "old", "old")
    await record.exchange(owner, made.id, "new", "new", follows=shared)
    page = await record.messages.page(owner, made.id, 0, 10)
    assert texts(page.messages) == ["shared", "new", "new"]
    await record.answer(owner, shared, "late")
    rest = await record.messages.page(owner, made.id, page.messages[-1].position, 10, page.tip_turn_id)
    assert texts(rest.messages) == ["late"]


@pytest.mark.parametrize("seed", range(3))
async def test_any_tree_is_read_back_as_it_was_grown(record: Record, seed: int) -> None:
    owner, choice = an_owner(), random.Random(seed)
    made = await record.conversation(owner)
    parents: dict[UUID, UUID | None] = {}  # in the order of asking

    def thread(turn_id: UUID | None) -> list[UUID]:
        return [*thread(parents[turn_id]), turn_id] if turn_id else []

    for _ in range(60):
        turn_id, asked = uuid4(), list(parents)
        kind, named = choice.choice("--fr") if asked else "-", choice.choice(asked) if asked else None
        parents[turn_id] = {"-": asked[-1] if asked else None, "f": named, "r": named and parents[named]}[kind]
        place = {"-": {}, "f": {"follows": named}, "r": {"replaces": named}}[kind]
        opened = await record.ask(owner, made.id, str(turn_id), turn_id=turn_id, history=7, **place)
        assert texts(opened.history) == [str(before) for before in thread(parents[turn_id])][-7:]
        await record.answer(owner, turn_id, "")
    threads = [thread(turn_id) for turn_id in parents]
    for turn_id, parent_turn_id in parents.items():
        newest = next(path for path in reversed(threads) if turn_id in path)
        assert await record.said(owner, made.id, turn_id) == [str(said) for said in newest]
        beside = [other for other, parent in parents.items() if parent == parent_turn_id]
        assert await placed(record, owner, made.id, turn_id) == (parent_turn_id, beside)
    assert await record.said(owner, made.id) == [str(said) for said in threads[-1]]


async def test_questions_asked_at_once_stand_one_after_the_other(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    await asyncio.gather(*(record.ask(owner, made.id, f"q{number}") for number in range(20)))
    assert len(await record.said(owner, made.id)) == 20


async def test_branches_begun_at_once_are_all_siblings(record: Record) -> None:
    owner = an_owner()
    made = await record.conversation(owner)
    first = await record.exchange(owner, made.id, "q1", "a1")
    followers = await asyncio.gather(
        *(record.ask(owner, made.id, f"q2 {number}", follows=first) for number in range(10)),
    )
    replaced = followers[0].question.turn_id
    others = await asyncio.gather(
        *(record.ask(owner, made.id, f"q2' {number}", replaces=replaced) for number in range(10)),
    )
    expected = {opened.question.turn_id for opened in (*followers, *others)}
    assert len(expected) == 20
    for opened in (*followers, *others):
        assert texts(opened.history) == ["q1", "a1"]
        turn_id = opened.question.turn_id
        assert await record.said(owner, made.id, turn_id) == ["q1", "a1", opened.question.text]
        parent_turn_id, siblings = await placed(record, owner, made.id, turn_id)
        assert (parent_turn_id, set(siblings)) == (first, expected)


async def test_an_answer_saved_while_a_question_waited_is_in_its_history(
    real_record: Record, database: Database
) -> None:
    owner, turn_id = an_owner(), uuid4()
    made = await real_record.conversation(owner)
    first = (await real_record.ask(owner, made.id, "q1")).question.turn_id
    async with locked(database, made.id) as lock:
        answered = asyncio.create_task(real_record.answer(owner, first, "a1"))
        await waiting(lock, 1)
        between = asyncio.create_task(real_record.ask(owner, made.id, "q2"))
        await waiting(lock, 2)
        asked = asyncio.create_task(real_record.ask(owner, made.id, "q3", turn_id=turn_id))
        await waiting(lock, 3)
    await answered
    second = await between
    opened = await asked
    assert texts(second.history) == texts(opened.history) == ["q1", "a1"]
    # PostgreSQL does not promise that whoever waited longer is first.
    earlier, later = sorted((second.question, opened.question), key=lambda question: question.position)
    assert (earlier.parent_turn_id, later.parent_turn_id) == (first, earlier.turn_id)
    assert await real_record.ask(owner, made.id, "q3", turn_id=turn_id) == opened
    assert len(await real_record.facts(owner)) == 5


async def test_two_that_waited_to_follow_one_turn_do_not_share_a_branch(
    real_record: Record, database: Database
) -> None:
    owner = an_owner()
    made = await real_record.conversation(owner)
    first = await real_record.exchange(owner, made.id, "q1", "a1")
    async with locked(database, made.id) as lock:
        asked = asyncio.gather(*(real_record.ask(owner, made.id, f"q2 {n}", follows=first) for n in range(3)))
        await waiting(lock, 3)
    for opened in await asked:
        turn_id = opened.question.turn_id
        assert opened.question.sibling_turn_ids[-1] == turn_id
        assert await real_record.said(owner, made.id, turn_id) == ["q1", "a1", opened.question.text]


OLD_ROWS = """
INSERT INTO conversations (tenant_id, id, user_id, title, last_position, request_id, request_digest)
    SELECT $1, id, $2, '', position, gen_random_uuid(), '' FROM (VALUES ($3::uuid, 5), ($4, 0)) AS made (id, position);
"""
OLD_TURNS = """
WITH rows (turn_id, state, close_position, position, role, text) AS (VALUES
    ($3::uuid, 'complete', 4::bigint, 1::bigint, 'user', 'q1'), ($3, 'complete', 4, 4, 'assistant', 'a1'),
    ($4, 'interrupted', 3, 2, 'user', 'q2'), ($5, 'open', NULL, 5, 'user', 'q3')
), turned AS (
    INSERT INTO turns (tenant_id, id, conversation_id, state, close_position)
    SELECT $1::uuid, turn_id, $2::uuid, state, close_position FROM rows WHERE role = 'user' ORDER BY turn_id
)
INSERT INTO messages (tenant_id, id, conversation_id, turn_id, position, role, text, state, prompt_tokens,
    completion_tokens, create_time)
SELECT $1, gen_random_uuid(), $2, turn_id, position, role, text, 'complete', 0, 0, now() FROM rows;
"""


async def test_conversations_from_before_branches_become_one_branch(
    database_for: Callable[..., AbstractAsyncContextManager[Database]], tmp_path: Path
) -> None:
    service, folder, owner = PROJECT / "services" / "session", tmp_path / "session", an_owner()
    (folder / "migrations").mkdir(parents=True)
    shutil.copy(service / "queries.sql", folder)
    shutil.copy(service / "migrations" / "0001_conversations.sql", folder / "migrations")
    asked, empty, turns = uuid4(), uuid4(), [uuid4() for _ in range(3)]
    async with database_for("session", folder) as database:
        connection = await database.connect()
        try:
            await connection.execute(OLD_ROWS, owner.tenant_id, owner.user_id, asked, empty)
            await connection.execute(OLD_TURNS, owner.tenant_id, asked, *turns)
            await apply_migrations(connection, [service / "migrations"])
        finally:
            await connection.close()

        async def facts(_: Owner) -> list[tuple[str, dict[str, str]]]:
            return []

        record = Record(StoredConversations(database), StoredMessages(database), StoredTurns(database), facts)
        page = await record.messages.page(owner, asked, 0, 10)
        assert (texts(page.messages), page.tip_turn_id) == (["q1", "q2", "a1", "q3"], turns[2])
        parents = {message.turn_id: message.parent_turn_id for message in page.messages}
        assert parents == {turns[0]: None, turns[1]: turns[0], turns[2]: turns[1]}
        assert texts((await record.ask(owner, asked, "q4")).history) == ["q1", "a1", "q2"]
        assert texts((await record.ask(owner, asked, "q2'", replaces=turns[1])).history) == ["q1", "a1"]
        assert await record.said(owner, asked) == ["q1", "a1", "q2'"]
        assert await record.said(owner, asked, turns[2]) == ["q1", "q2", "a1", "q3", "q4"]
        assert (await record.ask(owner, empty, "q1")).question.parent_turn_id is None
