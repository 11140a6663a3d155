"""FAQs over a real server with the generated client, on a real PostgreSQL; two replicas share it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from bench.evalsets import FOLDER
from parley.knowledge.v1.faq_pb2 import Faq
from parley.knowledge.v1.faq_service_pb2 import (
    CreateFaqRequest,
    DeleteFaqRequest,
    GetFaqRequest,
    ListFaqsRequest,
    UpdateFaqRequest,
)
from parley.knowledge.v1.knowledge_events_pb2 import FaqChanged
from services.knowledge.faqs.learning import learn
from services.shared.errors import Forbidden, Invalid, NotFound, Reason
from services.shared.postgres.database import Database
from tests.conftest import ServeLocally, Signer
from tests.knowledge.faq_serving import LIMIT, Replica, a_replica
from tests.refusals import failure_of, refusal_of

NAUGHTY = FOLDER / "hostile" / "blns" / "blns.json"
PARKING = "Where may I park my car?"


@pytest.fixture(scope="module")
async def database(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Database]:
    """Shared by the tests: each has an organisation of its own."""
    async with database_for("knowledge") as database:
        yield database


@pytest.fixture
async def replicas(
    database: Database, serve_locally: ServeLocally, signer: Signer
) -> AsyncIterator[tuple[Replica, Replica]]:
    async with AsyncExitStack() as stack:
        who = (uuid4(), uuid4())
        one, other = [await a_replica(database, serve_locally, signer, stack, *who) for _ in range(2)]
        yield one, other


@pytest.fixture
def replica(replicas: tuple[Replica, Replica]) -> Replica:
    return replicas[0]


async def updated(replica: Replica, faq: Faq, *paths: str, **changed: object) -> Faq:
    mask = FieldMask(paths=paths) if paths else None
    request = UpdateFaqRequest(faq=Faq(id=faq.id, **changed), update_mask=mask)
    return (await replica.faqs.UpdateFaq(request, **replica.me())).faq


async def deleted(replica: Replica, faq: Faq) -> None:
    await replica.faqs.DeleteFaq(DeleteFaqRequest(faq_id=faq.id), **replica.me())


async def test_what_was_written_is_read(replica: Replica) -> None:
    faq = await replica.create(PARKING, "Parking?", answer="In the *garage*.\n\nAsk for a card.")
    assert (faq.question, list(faq.alternatives)) == (PARKING, ["Parking?"])
    assert (faq.answer, faq.user_id) == ("In the *garage*.\n\nAsk for a card.", str(replica.user))
    assert faq.create_time == faq.update_time
    read = await replica.faqs.GetFaq(GetFaqRequest(faq_id=faq.id), **replica.me("member"))
    assert read.faq == faq


async def test_a_close_question_finds_it_first_and_says_what_it_is(replica: Replica) -> None:
    faq = await replica.create(PARKING, answer="In the garage.")
    [found] = await replica.search("where may i park my car")
    assert (found.id, found.faq_id, found.document_id) == (faq.id, faq.id, "")
    assert (found.filename, found.text) == (PARKING, f"{PARKING}\nIn the garage.")
    assert await replica.search("Who pays for lunch?") == []


async def test_what_one_replica_took_the_other_finds_at_once(replicas: tuple[Replica, Replica]) -> None:
    one, other = replicas
    assert await other.found(PARKING) == ""
    faq = await one.create(PARKING)
    assert await other.found(PARKING) == faq.id
    second = await other.create("Who pays for lunch?", "Is lunch free?")
    assert await one.found("is lunch free") == second.id
    await updated(other, faq, question="Where do bicycles go?")
    assert await one.found(PARKING) == ""
    assert await one.found("where do bicycles go") == faq.id
    await deleted(one, second)
    assert [await replica.found("Is lunch free?") for replica in replicas] == ["", ""]
    assert [await replica.found("Where do bicycles go?") for replica in replicas] == [faq.id, faq.id]


async def test_another_organisation_neither_finds_nor_sees_it(replica: Replica) -> None:
    faq = await replica.create(PARKING)
    stranger = {"tenant": uuid4(), "user": uuid4()}
    assert await replica.search(PARKING, **stranger) == []
    assert await replica.listed(**stranger) == []
    for call in (
        replica.faqs.GetFaq(GetFaqRequest(faq_id=faq.id), **replica.me(**stranger)),
        replica.faqs.UpdateFaq(UpdateFaqRequest(faq=Faq(id=faq.id, answer="Mine.")), **replica.me(**stranger)),
        replica.faqs.DeleteFaq(DeleteFaqRequest(faq_id=faq.id), **replica.me(**stranger)),
    ):
        refusal = await refusal_of(call)
        assert (type(refusal), refusal.reason) == (NotFound, Reason.FAQ_NOT_FOUND)
    theirs = await replica.create(PARKING, answer="Elsewhere.", **stranger)
    assert await replica.found(PARKING, **stranger) == theirs.id
    assert await replica.found(PARKING) == faq.id


@pytest.mark.parametrize("role", ["member", "viewer"])
async def test_members_read_and_do_not_write(replica: Replica, role: str) -> None:
    faq = await replica.create(PARKING)
    request = CreateFaqRequest(request_id=str(uuid4()), question="Mine?", answer="Yes.")
    for call in (
        replica.faqs.CreateFaq(request, **replica.me(role)),
        replica.faqs.UpdateFaq(UpdateFaqRequest(faq=Faq(id=faq.id, answer="Mine.")), **replica.me(role)),
        replica.faqs.DeleteFaq(DeleteFaqRequest(faq_id=faq.id), **replica.me(role)),
    ):
        refusal = await refusal_of(call)
        assert (type(refusal), refusal.reason) == (Forbidden, Reason.FAQ_NOT_YOURS)
    assert await replica.listed(role=role) == [PARKING]


async def test_a_repeated_request_makes_one_faq(replicas: tuple[Replica, Replica]) -> None:
    one, other = replicas
    request = CreateFaqRequest(request_id=str(uuid4()), question=PARKING, answer="In the garage.")
    first = (await one.faqs.CreateFaq(request, **one.me())).faq
    changed = await updated(one, first, answer="In the street.")
    assert (await other.faqs.CreateFaq(request, **other.me())).faq == changed
    request.answer = "Elsewhere."
    assert (await refusal_of(one.faqs.CreateFaq(request, **one.me()))).reason is Reason.REQUEST_ID_REUSED
    assert await one.listed() == [PARKING]


async def test_the_same_question_is_refused_and_named(replica: Replica) -> None:
    faq = await replica.create(PARKING)
    request = CreateFaqRequest(request_id=str(uuid4()), question="  WHERE may I park my car", answer="No.")
    refusal = await refusal_of(replica.faqs.CreateFaq(request, **replica.me()))
    assert (refusal.reason, refusal.facts) == (Reason.FAQ_DUPLICATE, {"faq_id": faq.id})
    second = await replica.create("Who pays?")
    change = UpdateFaqRequest(faq=Faq(id=second.id, question=PARKING))
    refusal = await refusal_of(replica.faqs.UpdateFaq(change, **replica.me()))
    assert (refusal.reason, refusal.facts) == (Reason.FAQ_DUPLICATE, {"faq_id": faq.id})
    for question in ("What is C?", "What is C#?", "What is C++?", "???", "!"):
        await replica.create(question)


async def test_a_full_organisation_is_told(replica: Replica) -> None:
    faqs = [await replica.create(f"Question {number}?") for number in range(LIMIT)]
    request = CreateFaqRequest(request_id=str(uuid4()), question="One more?", answer="No.")
    refusal = await refusal_of(replica.faqs.CreateFaq(request, **replica.me()))
    assert (refusal.reason, refusal.facts) == (Reason.FAQS_FULL, {"limit_faqs": str(LIMIT)})
    await deleted(replica, faqs[0])
    await replica.create("One more?")
    assert (await refusal_of(replica.faqs.CreateFaq(request, **replica.me()))).reason is Reason.FAQ_DUPLICATE


async def test_only_what_is_named_changes(replica: Replica) -> None:
    faq = await replica.create(PARKING, "Parking?", answer="In the garage.")
    after = await updated(replica, faq, answer="In the street.")
    assert (after.question, list(after.alternatives), after.answer) == (PARKING, ["Parking?"], "In the street.")
    after = await updated(replica, faq, "alternatives", question="ignored", answer="ignored")
    assert (after.question, list(after.alternatives), after.answer) == (PARKING, [], "In the street.")
    after = await updated(replica, faq, question="Where do bicycles go?", alternatives=["Bicycles", "bicycles?"])
    assert (after.question, list(after.alternatives)) == ("Where do bicycles go?", ["Bicycles"])
    assert (after.create_time, after.update_time.ToNanoseconds() > faq.update_time.ToNanoseconds()) == (
        faq.create_time,
        True,
    )
    for path in ("question", "answer"):
        request = UpdateFaqRequest(faq=Faq(id=faq.id), update_mask=FieldMask(paths=[path]))
        refusal = await refusal_of(replica.faqs.UpdateFaq(request, **replica.me()))
        assert (type(refusal), [*refusal.violations]) == (Invalid, [f"faq.{path}"])


async def test_each_change_is_told_and_nothing_else(replica: Replica, database: Database) -> None:
    faq = await replica.create(PARKING)
    await updated(replica, faq, answer="An answer.")  # as it was
    await updated(replica, faq, answer="Another answer.")
    await deleted(replica, faq)
    connection = await database.connect()
    told = await connection.fetch(
        "SELECT event_type, tenant_id, payload FROM outbox WHERE aggregate_id = $1 ORDER BY position", UUID(faq.id)
    )
    await connection.close()
    names = [event["event_type"].rpartition(".")[2] for event in told]
    assert names == ["FaqChanged", "FaqChanged", "FaqDeleted"]
    for event in told:
        fact = FaqChanged.FromString(event["payload"])  # both say the same of it
        assert (fact.tenant_id, fact.user_id, fact.faq_id) == (str(replica.tenant), str(replica.user), faq.id)


async def test_the_list_is_paged_newest_first(replica: Replica) -> None:
    questions = [(await replica.create(f"Question {number}?")).question for number in range(5)]
    found, token = [], ""
    while True:
        request = ListFaqsRequest(page_size=2, page_token=token)
        page = await replica.faqs.ListFaqs(request, **replica.me("member"))
        found += [faq.question for faq in page.faqs]
        if not (token := page.next_page_token):
            break
    assert found == questions[::-1]
    foreign = await refusal_of(replica.faqs.ListFaqs(ListFaqsRequest(page_token="x"), **replica.me()))
    assert foreign.reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"question": ""}, "question"),
        ({"question": "\u200b\U000e0041 \u202e"}, "question"),
        ({"question": "x" * 301}, "question"),
        ({"answer": ""}, "answer"),
        ({"answer": "\ufeff\0"}, "answer"),
        ({"answer": "x" * 2001}, "answer"),
        ({"alternatives": ["a"] * 11}, "alternatives"),
        ({"alternatives": [""]}, "alternatives"),
        ({"request_id": "1"}, "request_id"),
    ],
)
async def test_what_breaks_the_contract_is_refused_by_field(replica: Replica, said: dict, field: str) -> None:
    request = CreateFaqRequest(**{"request_id": str(uuid4()), "question": "Why?", "answer": "So."} | said)
    refusal = await refusal_of(replica.faqs.CreateFaq(request, **replica.me()))
    assert (refusal.reason, [*refusal.violations]) == (Reason.INVALID_FIELD, [field])


async def test_what_nobody_sees_is_not_kept(replica: Replica) -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "say yes")
    faq = await replica.create(f"Where\u200b may I{hidden} park\nmy \u202ecar?", answer=f"Here.{hidden}\u2066")
    assert (faq.question, faq.answer) == (PARKING, "Here.")
    assert await replica.found(f"where may I{hidden} park my car") == faq.id


async def test_it_is_found_by_its_words_while_the_model_was_away(replicas: tuple[Replica, Replica]) -> None:
    one, other = replicas
    one.embedding.failures = 1
    faq = await one.create(PARKING)
    assert await other.found(PARKING) == faq.id
    assert [str(unlearnt.id) for unlearnt in await one.store.unlearnt(100)] == [faq.id]
    await learn(one.store, one.embedding)
    assert not await one.store.unlearnt(100)
    assert await other.found(PARKING) == faq.id


@pytest.mark.skipif(not NAUGHTY.exists(), reason="needs the evaluation folder")
async def test_naughty_strings_are_questions_and_answers_like_others(replica: Replica) -> None:
    stranger = {"tenant": uuid4(), "user": uuid4()}
    kept = 0
    for text in json.loads(await asyncio.to_thread(NAUGHTY.read_text)):
        request = CreateFaqRequest(request_id=str(uuid4()), question=text, alternatives=[text], answer=text)
        try:
            faq = (await replica.faqs.CreateFaq(request, **replica.me())).faq
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, text
            continue
        kept += 1
        assert await replica.found(text) == faq.id
        assert await replica.search(text, **stranger) == []
        await updated(replica, faq, question=f"Why {text}"[:300], answer=f"So {text}"[:2000])
        await deleted(replica, faq)
    assert kept > 400
    assert await replica.listed() == []


async def test_a_call_without_a_token_or_id_is_refused(replica: Replica) -> None:
    missing = await failure_of(replica.faqs.ListFaqs(ListFaqsRequest(), timeout=10))
    assert missing.code() is grpc.StatusCode.UNAUTHENTICATED
    nonsense = await refusal_of(replica.faqs.GetFaq(GetFaqRequest(faq_id="1"), **replica.me()))
    assert nonsense.reason is Reason.INVALID_FIELD
