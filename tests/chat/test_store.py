"""One suite for the record of turns: on the fake, and on real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from parley.chat.v1 import chat_events_pb2
from parley.errors.v1.error_reason_pb2 import ERROR_REASON_MODEL_UNAVAILABLE
from services.chat.store import StoredTurns
from services.chat.turn import Asker, Cancelled, Completed, End, Failed, FinishReason, Turn, Usage
from services.chat.turns import TurnRecords
from services.shared.errors import Reason
from services.shared.postgres.database import Database
from tests.chat.conftest import a_question, an_asker
from tests.chat.fakes import FakeTurnRecords

DIGEST = b"\1" * 32
LIFETIME_S = 300.0
LONG_AGO_S = -3600.0
FAILED = Failed(Reason.MODEL_UNAVAILABLE, "gone")


@dataclass(frozen=True)
class Record:
    turns: TurnRecords
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
            return [f"Turn{type(end).__name__}" for _, end in fake.ended]

        return Record(fake, fake_facts)
    database = request.getfixturevalue("database")

    async def facts(asker: Asker) -> list[str]:
        return [row["event_type"].rpartition(".")[2] for row in await outbox(database, asker)]

    return Record(StoredTurns(database), facts)


async def outbox(database: Database, asker: Asker) -> list[dict]:
    connection = await database.connect()
    try:
        query = "SELECT * FROM outbox WHERE tenant_id = $1 ORDER BY position"
        return [dict(row) for row in await connection.fetch(query, asker.tenant_id)]
    finally:
        await connection.close()


def a_turn(asker: Asker | None = None) -> Turn:
    return Turn(id=uuid4(), run_id=uuid4(), asker=asker or an_asker(), question=a_question(), model="chat")


def a_copy_of(turn: Turn) -> Turn:
    """The same request, as it arrives again."""
    return replace(turn, id=uuid4(), run_id=uuid4())


async def test_a_new_request_is_ours(record: Record) -> None:
    turn = a_turn()
    claim = await record.turns.claim(turn, DIGEST, LIFETIME_S)
    assert (claim.turn_id, claim.ours, claim.same_content) == (turn.id, True, True)
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert (found.conversation_id, found.model, found.end) == (turn.question.conversation_id, "chat", None)
    assert not found.overdue


async def test_of_simultaneous_copies_one_has_the_turn(record: Record) -> None:
    turn = a_turn()
    copies = [record.turns.claim(a_copy_of(turn), DIGEST, LIFETIME_S) for _ in range(50)]
    claims = await asyncio.gather(*copies)
    assert len({claim.turn_id for claim in claims}) == 1
    assert sum(claim.ours for claim in claims) == 1


async def test_other_content_under_the_same_id_is_noticed(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    claim = await record.turns.claim(a_copy_of(turn), b"\2" * 32, LIFETIME_S)
    assert (claim.ours, claim.same_content) == (False, False)


async def test_request_ids_of_two_users_do_not_meet(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    colleague = replace(a_copy_of(turn), asker=replace(turn.asker, user_id=uuid4()))
    stranger = replace(a_copy_of(turn), asker=replace(turn.asker, tenant_id=uuid4()))
    for other in (colleague, stranger):
        assert (await record.turns.claim(other, DIGEST, LIFETIME_S)).ours
        assert await record.turns.find(other.asker, turn.id) is None


@pytest.mark.parametrize(
    "end",
    [Completed(FinishReason.LENGTH, uuid4()), Completed(FinishReason.STOP), FAILED, Cancelled(uuid4()), Cancelled()],
    ids=["completed", "completed without words", "failed", "cancelled", "cancelled without words"],
)
async def test_a_turn_ends_once_with_its_fact(record: Record, end: End) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    message_id = None if isinstance(end, Failed) else end.message_id
    await record.turns.finish(turn, end, Usage(7, 2), message_id)
    await record.turns.finish(turn, Cancelled(), Usage(), None)
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert (found.end, found.usage, found.overdue) == (end, Usage(7, 2), False)
    assert await record.facts(turn.asker) == [f"Turn{type(end).__name__}"]


async def test_a_released_request_is_as_if_it_had_not_come(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    await record.turns.release(turn)
    assert await record.turns.find(turn.asker, turn.id) is None
    assert (await record.turns.claim(a_copy_of(turn), DIGEST, LIFETIME_S)).ours


async def test_an_ended_turn_is_not_released(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    await record.turns.finish(turn, Completed(FinishReason.STOP), Usage(), None)
    await record.turns.release(turn)
    assert await record.turns.find(turn.asker, turn.id)


async def test_a_turn_that_failed_with_nothing_saved_starts_again(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    await record.turns.finish(turn, FAILED, Usage(), None)
    copies = [a_copy_of(turn) for _ in range(5)]
    claims = await asyncio.gather(*(record.turns.claim(copy, DIGEST, LIFETIME_S) for copy in copies))
    assert [claim.turn_id for claim in claims] == [turn.id] * 5
    assert sum(claim.ours for claim in claims) == 1
    again = next(copy for copy, claim in zip(copies, claims, strict=True) if claim.ours)
    await record.turns.finish(turn, Cancelled(), Usage(), None)  # the first run has no say any more
    await record.turns.finish(replace(again, id=turn.id), Completed(FinishReason.STOP), Usage(), None)
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert isinstance(found.end, Completed)


async def test_a_second_try_that_is_released_stays_failed(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    await record.turns.finish(turn, FAILED, Usage(), None)
    again = replace(a_copy_of(turn), id=turn.id)
    assert (await record.turns.claim(again, DIGEST, LIFETIME_S)).ours
    await record.turns.release(again)
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert isinstance(found.end, Failed)
    assert (await record.turns.claim(a_copy_of(turn), DIGEST, LIFETIME_S)).ours


@pytest.mark.parametrize("end", [Completed(FinishReason.STOP), Cancelled()], ids=str)
async def test_what_ended_otherwise_stays_ended(record: Record, end: End) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    await record.turns.finish(turn, end, Usage(), None)
    claim = await record.turns.claim(a_copy_of(turn), DIGEST, LIFETIME_S)
    assert (claim.turn_id, claim.ours, claim.same_content) == (turn.id, False, True)


async def test_a_failed_turn_whose_words_were_saved_stays_failed(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LIFETIME_S)
    await record.turns.finish(turn, FAILED, Usage(), uuid4())
    assert not (await record.turns.claim(a_copy_of(turn), DIGEST, LIFETIME_S)).ours


async def test_an_overdue_turn_passes_to_the_next_request(record: Record) -> None:
    turn = a_turn()
    await record.turns.claim(turn, DIGEST, LONG_AGO_S)
    found = await record.turns.find(turn.asker, turn.id)
    assert found
    assert found.overdue
    claim = await record.turns.claim(a_copy_of(turn), DIGEST, LIFETIME_S)
    assert (claim.turn_id, claim.ours) == (turn.id, True)


async def test_the_facts_hold_what_other_services_need(database: Database) -> None:
    turn, message_id = a_turn(), uuid4()
    store = StoredTurns(database)
    await store.claim(turn, DIGEST, LIFETIME_S)
    await store.finish(turn, Completed(FinishReason.STOP, message_id), Usage(7, 2), message_id)
    failed = a_turn(turn.asker)
    await store.claim(failed, DIGEST, LIFETIME_S)
    await store.finish(failed, FAILED, Usage(), None)
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
