"""One suite for the record of turns: on the fake, and on real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID, uuid4

import pytest

from parley.chat.v1 import chat_events_pb2
from parley.errors.v1.error_reason_pb2 import ERROR_REASON_MODEL_UNAVAILABLE
from services.chat.ownership import Leases
from services.chat.store import StoredTurns
from services.chat.turn import (
    Asker,
    CancellationCause,
    Cancelled,
    Completed,
    End,
    Failed,
    FinishReason,
    Rating,
    Replaces,
    Turn,
    TurnRecord,
    Usage,
    Verdict,
)
from services.chat.turns import TurnRecords
from services.shared.errors import Reason
from services.shared.postgres.database import Database
from tests.chat.conftest import a_question, a_turn, an_asker
from tests.chat.fakes import FakeTurnRecords

DIGEST = b"\1" * 32
CAP = 20
NOW = datetime(2026, 11, 1, tzinfo=UTC)
FAILED = Failed(Reason.MODEL_UNAVAILABLE, "gone")


class Records(TurnRecords, Leases, Protocol):
    """All that a replica asks of the record."""

    async def rate(self, asker: Asker, turn_id: UUID, rating: Rating) -> TurnRecord | None: ...


@dataclass(frozen=True)
class Record:
    turns: Records
    other: Records  # as another replica sees it
    facts: Callable[[Asker], Awaitable[list[str]]]  # the kinds of event of an organisation, oldest first


@pytest.fixture(scope="module")
async def database(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Database]:
    """Shared by a module's tests: each has an organisation of its own."""
    async with database_for("chat") as database:
        yield database


@pytest.fixture(params=["fake", "postgres"])
def record(request: pytest.FixtureRequest) -> Record:
    if request.param == "fake":
        fake = FakeTurnRecords()

        async def fake_facts(asker: Asker) -> list[str]:
            return [fact for tenant_id, fact in fake.record.facts if tenant_id == asker.tenant_id]

        return Record(fake, fake.of(uuid4()), fake_facts)
    database = request.getfixturevalue("database")

    async def facts(asker: Asker) -> list[str]:
        return [row["event_type"].rpartition(".")[2] for row in await outbox(database, asker)]

    return Record(StoredTurns(database, uuid4()), StoredTurns(database, uuid4()), facts)


async def outbox(database: Database, asker: Asker) -> list[dict]:
    connection = await database.connect()
    try:
        query = "SELECT * FROM outbox WHERE tenant_id = $1 ORDER BY position"
        return [dict(row) for row in await connection.fetch(query, asker.tenant_id)]
    finally:
        await connection.close()


def a_copy_of(turn: Turn) -> Turn:
    """The same request, as it arrives again."""
    return replace(turn, id=uuid4(), run_id=uuid4())


async def test_a_new_request_is_ours(record: Record) -> None:
    turn = a_turn()
    claim = await record.turns.claim(turn, DIGEST, CAP)
    assert (claim.turn_id, claim.ours, claim.same_content, claim.runs) == (turn.id, True, True, 1)
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert found.create_time == claim.create_time
    assert (found.conversation_id, found.model, found.end) == (turn.question.conversation_id, "chat", None)


async def test_of_simultaneous_copies_one_has_the_turn(record: Record) -> None:
    turn = a_turn()
    copies = [record.turns.claim(a_copy_of(turn), DIGEST, CAP) for _ in range(50)]
    claims = await asyncio.gather(*copies)
    assert len({claim.turn_id for claim in claims}) == 1
    assert sum(claim.ours for claim in claims) == 1


async def test_other_content_under_the_same_id_is_noticed(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    claim = await record.turns.claim(a_copy_of(turn), b"\2" * 32, CAP)
    assert (claim.ours, claim.same_content) == (False, False)


async def test_request_ids_of_two_users_do_not_meet(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    colleague = replace(a_copy_of(turn), asker=replace(turn.asker, user_id=uuid4()))
    stranger = replace(a_copy_of(turn), asker=replace(turn.asker, tenant_id=uuid4()))
    for other in (colleague, stranger):
        assert (await record.turns.claim(other, DIGEST, CAP)).ours
        assert await record.turns.find(other.asker, turn.id) is None


@pytest.mark.parametrize(
    "end",
    [
        Completed(FinishReason.LENGTH, uuid4()),
        Completed(FinishReason.STOP),
        FAILED,
        Cancelled(uuid4(), CancellationCause.DEADLINE, 17),
        Cancelled(),
    ],
    ids=["completed", "completed without words", "failed", "cancelled", "cancelled without words"],
)
async def test_a_turn_ends_once_with_its_fact(record: Record, end: End) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    message_id = None if isinstance(end, Failed) else end.message_id
    assert await record.turns.finish(turn, end, Usage(7, 2), message_id, NOW)
    assert await record.turns.finish(turn, Cancelled(), Usage(), None, None)  # sent again: changes nothing
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert (found.end, found.usage, found.message_id) == (end, Usage(7, 2), message_id)
    assert found.first_text_time == NOW
    assert found.end_time
    assert await record.facts(turn.asker) == [f"Turn{type(end).__name__}"]


async def test_a_released_request_is_as_if_it_had_not_come(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.release(turn)
    assert await record.turns.find(turn.asker, turn.id) is None
    assert (await record.turns.claim(a_copy_of(turn), DIGEST, CAP)).ours


async def test_an_ended_turn_is_not_released(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.finish(turn, Completed(FinishReason.STOP), Usage(), None, None)
    await record.turns.release(turn)
    assert await record.turns.find(turn.asker, turn.id)


async def test_a_turn_that_failed_with_nothing_saved_starts_again(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.finish(turn, FAILED, Usage(), None, None)
    copies = [a_copy_of(turn) for _ in range(5)]
    claims = await asyncio.gather(*(record.turns.claim(copy, DIGEST, CAP) for copy in copies))
    assert [claim.turn_id for claim in claims] == [turn.id] * 5
    assert sum(claim.ours for claim in claims) == 1
    again = next(copy for copy, claim in zip(copies, claims, strict=True) if claim.ours)
    await record.turns.finish(turn, Cancelled(), Usage(), None, None)  # the first run has no say any more
    await record.turns.finish(replace(again, id=turn.id), Completed(FinishReason.STOP), Usage(), None, None)
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert isinstance(found.end, Completed)


async def test_a_second_try_does_not_believe_the_log_of_the_first(record: Record) -> None:
    turn = replace(a_turn(), log_incarnation="life 1")
    first = await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.finish(turn, FAILED, Usage(), None, NOW)
    await record.turns.renew(60)
    again = await record.turns.claim(a_copy_of(turn), DIGEST, CAP)
    assert (again.runs, again.create_time) == (2, first.create_time)
    found = await record.turns.find(turn.asker, turn.id)
    assert (found.end, found.first_text_time) == (None, None)
    await record.turns.retire()
    await record.other.renew(60)
    (taken_over,) = await taken(record.other, turn)
    assert (taken_over.runs, taken_over.log_incarnation) == (3, None)


@pytest.mark.parametrize("end", [Completed(FinishReason.STOP), Cancelled()], ids=str)
async def test_what_ended_otherwise_stays_ended(record: Record, end: End) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.finish(turn, end, Usage(), None, None)
    claim = await record.turns.claim(a_copy_of(turn), DIGEST, CAP)
    assert (claim.turn_id, claim.ours, claim.same_content) == (turn.id, False, True)


async def test_a_failed_turn_whose_words_were_saved_stays_failed(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.finish(turn, FAILED, Usage(), uuid4(), None)
    assert not (await record.turns.claim(a_copy_of(turn), DIGEST, CAP)).ours


async def test_a_user_may_have_so_many_running_turns(record: Record) -> None:
    first = a_turn()
    assert await record.turns.claim(first, DIGEST, 2)
    second = a_turn(first.asker)
    assert await record.other.claim(second, DIGEST, 2)
    assert await record.turns.claim(a_turn(first.asker), DIGEST, 2) is None
    assert (await record.turns.claim(a_copy_of(first), DIGEST, 2)).turn_id == first.id
    assert (await record.turns.claim(a_turn(), DIGEST, 2)).ours
    await record.turns.finish(first, Cancelled(), Usage(), None, None)
    assert (await record.turns.claim(a_turn(first.asker), DIGEST, 2)).ours


async def test_of_simultaneous_turns_just_so_many_are_let_in(record: Record) -> None:
    asker = an_asker()
    views = (record.turns, record.other)
    turns = [a_turn(asker) for _ in range(100)]
    claims = await asyncio.gather(*(views[number % 2].claim(turn, DIGEST, CAP) for number, turn in enumerate(turns)))
    assert sum(claim is not None for claim in claims) == CAP


async def test_copies_of_the_last_turn_that_is_let_in_all_join_it(record: Record) -> None:
    first, last = a_turn(), a_turn()
    last = replace(last, asker=first.asker)
    await record.turns.claim(first, DIGEST, 2)
    claims = await asyncio.gather(*(record.turns.claim(a_copy_of(last), DIGEST, 2) for _ in range(50)))
    assert len({claim.turn_id for claim in claims}) == 1
    assert sum(claim.ours for claim in claims) == 1


async def test_a_turn_that_is_tried_again_counts_like_a_new_one(record: Record) -> None:
    failed = a_turn()
    await record.turns.claim(failed, DIGEST, 1)
    await record.turns.finish(failed, FAILED, Usage(), None, None)
    running = a_turn(failed.asker)
    await record.turns.claim(running, DIGEST, 1)
    assert await record.turns.claim(a_copy_of(failed), DIGEST, 1) is None
    other_content = await record.turns.claim(a_copy_of(failed), b"\2" * 32, 1)
    assert not other_content.same_content
    await record.turns.finish(running, Cancelled(), Usage(), None, None)
    assert (await record.turns.claim(a_copy_of(failed), DIGEST, 1)).ours


async def a_dead_turn(record: Record, **fields: object) -> Turn:
    """A turn of `record.turns`, which has just died."""
    turn = replace(a_turn(), **fields)
    await record.turns.renew(60)
    await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.retire()
    return turn


async def taken(records: Records, turn: Turn) -> list[Turn]:
    """Of the organisation: other tests leave dead turns, too."""
    return [each for each in await records.take_over((), 1000) if each.asker.tenant_id == turn.asker.tenant_id]


async def test_a_turn_of_a_dead_replica_is_taken_once_with_all_that_it_needs(record: Record) -> None:
    place = Replaces(uuid4())
    question = a_question(temperature=0.5, model="chat", reader_grace_s=2.5, place=place, search=False)
    turn = await a_dead_turn(record, question=question, log_incarnation="life 1")
    await record.other.renew(60)
    (again,) = await taken(record.other, turn)
    assert again.run_id != turn.run_id
    assert 50 < again.time_left_s <= 60
    create_time = (await record.turns.find(turn.asker, turn.id)).create_time
    assert again == replace(turn, run_id=again.run_id, runs=2, create_time=create_time, time_left_s=again.time_left_s)
    assert await taken(record.other, turn) == []


async def test_a_turn_of_a_live_replica_is_left_alone(record: Record) -> None:
    turn = a_turn()
    await record.turns.renew(60)
    await record.turns.claim(turn, DIGEST, CAP)
    assert await taken(record.other, turn) == []
    assert await taken(record.turns, turn) == []  # its own: it may be about to run it


async def test_a_claim_whose_answer_was_lost_is_found_after_the_next_renewal(record: Record) -> None:
    turn = a_turn()
    await record.turns.renew(60)
    await record.turns.claim(turn, DIGEST, CAP)
    await record.turns.renew(60)
    (found,) = await taken(record.turns, turn)
    assert (found.id, found.runs) == (turn.id, 2)
    assert await record.turns.take_over([found.run_id], 1000) == []


async def test_a_run_that_lost_its_turn_can_do_nothing_to_it(record: Record) -> None:
    old = await a_dead_turn(record)
    await record.other.renew(60)
    (new,) = await taken(record.other, old)
    assert not await record.turns.mark_log(old, "life 2")
    assert not await record.turns.finish(old, Cancelled(), Usage(), None, None)
    assert await record.turns.retake(old) is None
    await record.turns.release(old)
    assert await record.other.mark_log(new, None)
    again = await record.other.retake(new)
    assert again
    assert (again.id, again.runs, again.log_incarnation) == (old.id, 3, None)
    assert await record.other.finish(again, Completed(FinishReason.STOP), Usage(), None, None)


async def test_a_wish_to_cancel_reaches_whoever_runs_the_turn(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    assert await record.turns.wishes() == []
    wished = await record.other.request_cancel(turn.asker, turn.id)
    assert wished
    assert wished.end is None
    ((turn_id, ago_s),) = await record.turns.wishes()
    assert turn_id == turn.id
    assert 0 <= ago_s < 5
    assert await record.other.wishes() == []
    await record.turns.finish(turn, Cancelled(), Usage(), None, None)
    ended = await record.other.request_cancel(turn.asker, turn.id)
    assert ended
    assert ended.end == Cancelled()
    assert await record.turns.request_cancel(an_asker(), turn.id) is None


async def test_replicas_know_of_each_other(record: Record) -> None:
    await record.turns.renew(60)
    assert await record.other.has_others()
    await record.turns.retire()


async def test_a_rating_can_be_changed_and_taken_back(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, CAP)
    for rating in (Rating(Verdict.BAD, "Too long."), Rating(Verdict.GOOD), Rating()):
        rated = await record.turns.rate(turn.asker, turn.id, rating)
        assert rated
        assert rated.rating == rating
    assert await record.turns.find(turn.asker, turn.id) == rated
    assert await record.turns.rate(an_asker(), turn.id, Rating(Verdict.GOOD)) is None
    assert await record.facts(turn.asker) == ["TurnRated"] * 3


async def test_a_claim_counts_what_was_claimed_while_it_waited(database: Database) -> None:
    turn, store = a_turn(), StoredTurns(database, uuid4())
    asker = turn.asker
    before = await database.connect()
    try:
        async with before.transaction():
            may = "SELECT may_claim($1, $2, $3, $4, 1)"
            assert await before.fetchval(may, asker.tenant_id, asker.user_id, turn.question.request_id, DIGEST)
            claiming = asyncio.create_task(store.claim(a_turn(asker), DIGEST, 1))
            async with asyncio.timeout(5):
                while not await before.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
            columns = (
                "tenant_id, id, user_id, request_id, content_digest, conversation_id, model, run_id, deadline_time"
            )
            await before.execute(
                f"INSERT INTO turns ({columns}) VALUES ($1, $2, $3, $2, $4, $2, '', $2, now())",
                *(asker.tenant_id, turn.id, asker.user_id, DIGEST),
            )
        assert await claiming is None
    finally:
        await before.close()


async def test_an_ended_turn_keeps_no_token(database: Database) -> None:
    turn, store = a_turn(), StoredTurns(database, uuid4())
    await store.claim(turn, DIGEST, CAP)
    await store.finish(turn, Completed(FinishReason.STOP), Usage(), None, None)
    connection = await database.connect()
    try:
        row = await connection.fetchrow("SELECT token, question FROM turns WHERE id = $1", turn.id)
    finally:
        await connection.close()
    assert (row["token"], row["question"]) == (None, None)


async def test_the_facts_hold_what_other_services_need(database: Database) -> None:
    turn, message_id = a_turn(), uuid4()
    store = StoredTurns(database, uuid4())
    await store.claim(turn, DIGEST, CAP)
    await store.finish(turn, Completed(FinishReason.STOP, message_id), Usage(7, 2), message_id, None)
    failed = a_turn(turn.asker)
    await store.claim(failed, DIGEST, CAP)
    await store.finish(failed, FAILED, Usage(), None, None)
    first, second = await outbox(database, turn.asker)
    assert first["event_type"] == "parley.chat.v1.TurnCompleted"
    assert first["aggregate_id"] == turn.id
    fact = chat_events_pb2.TurnCompleted.FromString(first["payload"])
    assert (fact.tenant_id, fact.user_id) == (str(turn.asker.tenant_id), str(turn.asker.user_id))
    assert (fact.turn_id, fact.conversation_id) == (str(turn.id), str(turn.question.conversation_id))
    assert (fact.message_id, fact.model) == (str(message_id), "chat")
    assert (fact.usage.prompt_tokens, fact.usage.completion_tokens) == (7, 2)
    failure = chat_events_pb2.TurnFailed.FromString(second["payload"])
    assert failure.reason == ERROR_REASON_MODEL_UNAVAILABLE
