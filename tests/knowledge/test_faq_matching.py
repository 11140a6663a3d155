"""Which FAQ answers which question, in many languages; and what each replica holds in memory, under races."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.knowledge.document import Member
from services.knowledge.faqs import matching
from services.knowledge.faqs.faq import Change, Curation, Faq, Wording, worded
from services.knowledge.faqs.matching import Asked, Matching, weight_of_terms
from services.knowledge.faqs.phrasings import PhrasingTable
from services.knowledge.faqs.store import StoredFaqs
from services.knowledge.passages import Passage
from services.knowledge.search import FoundPassage, Vector
from services.shared.errors import AlreadyExists, Exhausted, NotFound
from services.shared.postgres.database import Database
from tests.knowledge.fakes import FakeEmbedding, vector_of

LIMIT = 30
SAME_MEANING = {"vacation": "leave", "holiday": "leave", "much": "long", "many": "long", "days": ""}


class EnglishModel(FakeEmbedding):
    """Knows a few words of the same meaning. All texts of other scripts are alike to it."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        await super().embed(texts)
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> Vector:
        words = text.lower().strip("?").split() if text.isascii() else ["noise"]
        return vector_of(" ".join(SAME_MEANING.get(word, word) for word in words))


class Curated:
    """An organisation with FAQs, as one replica sees it."""

    def __init__(self, database: Database, member: Member, model: str = "english", limit: int = LIMIT) -> None:
        self.member, self.embedding = member, EnglishModel()
        self.store = StoredFaqs(database, model, limit)
        self.curation = Curation(self.store, self.embedding)
        self.matching = Matching(self.store, self.embedding, PhrasingTable())

    async def add(self, question: str, *also: str) -> Faq:
        return await self.curation.create(self.member, uuid4(), worded(question, also, "So."))

    async def answering(self, question: str, tenant_id: UUID | None = None) -> str:
        """The question of the FAQ that answers; empty when none does."""
        found = await self.matching.answering(tenant_id or self.member.tenant_id, question)
        return found.question if found else ""


@pytest.fixture(scope="module")
async def database(database_for: Callable[[str], AbstractAsyncContextManager[Database]]) -> AsyncIterator[Database]:
    async with database_for("knowledge") as database:
        yield database


@pytest.fixture
def pair(database: Database) -> tuple[Curated, Curated]:
    """Two replicas."""
    member = Member(uuid4(), uuid4(), "owner")
    return Curated(database, member), Curated(database, member)


@pytest.fixture
def curated(pair: tuple[Curated, Curated]) -> Curated:
    return pair[0]


QUESTIONS = (
    "How long is annual leave?",
    "How long is the notice period?",
    "מהי תקופת ההודעה המוקדמת?",
    "מתי סוגרים את החניון?",
    "ما هي فترة الإشعار للموظف؟",
    "怎么报销差旅费？",
    "Сколько длится испытательный срок?",
    "Wie beantrage ich Elternzeit?",
)


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ("how many days is annual vacation", 0),
        ("HOW LONG IS THE NOTICE PERIOD", 1),
        ("תקופת ההודעה המוקדמת מהי?", 2),
        ("מהי תקופת ההוֹדָעָה המוקדמת", 2),
        ("מתי סוגרים את החנייון", 3),
        ("ما هي فترة الاشعار للموظف", 4),
        ("差旅费怎么报销", 5),
        ("Испытательный срок сколько длится", 6),
        ("wie beantrage ich die Elternzeit", 7),
        ("What is the annual interest?", None),
        ("Who decides on annual leave?", None),
        ("מהי תקופת הניסיון?", None),
        ("מתי פותחים את החניון?", None),
        ("ما هي فترة التجربة للموظف؟", None),
        ("怎么报销电话费？", None),
        ("Сколько длится отпуск?", None),
        ("Wie lange dauert die Probezeit?", None),
        ("?!", None),
        ("🤖", None),
    ],
)
async def test_a_question_finds_what_asks_the_same_and_nothing_else(
    curated: Curated, asked: str, place: int | None
) -> None:
    for question in QUESTIONS:
        await curated.add(question)
    assert await curated.answering(asked) == ("" if place is None else QUESTIONS[place])


async def test_a_faq_takes_the_first_of_the_places(curated: Curated) -> None:
    passages = [FoundPassage(uuid4(), uuid4(), "a.txt", Passage(place, "text")) for place in range(2)]

    async def found(question: str, limit: int) -> list[object]:
        async def search() -> list[FoundPassage]:
            return passages[:limit]

        tenant_id = curated.member.tenant_id
        return [each.id for each in await curated.matching.before(tenant_id, question, limit, search())]

    faq = await curated.add("How long is annual leave?")
    assert await found("how long is annual leave", 2) == [faq.id, passages[0].id]
    assert await found("how long is annual leave", 1) == [faq.id]
    assert await found("who pays", 2) == [passage.id for passage in passages]


async def test_each_phrasing_counts_and_a_question_goes_before_anothers_phrasing(curated: Curated) -> None:
    await curated.add("How long is annual leave?", "Can I go on a sabbatical?")
    assert await curated.answering("can i go on a sabbatical") == "How long is annual leave?"
    await curated.add("Can I go on a sabbatical?")
    assert await curated.answering("can i go on a sabbatical") == "Can I go on a sabbatical?"


async def test_what_was_deleted_elsewhere_stands_in_no_ones_way(pair: tuple[Curated, Curated]) -> None:
    one, other = pair
    await one.add("How long is annual leave?", "Can I go on a sabbatical?")
    second = await one.add("Can I go on a sabbatical?")
    assert await other.answering("can i go on a sabbatical") == "Can I go on a sabbatical?"
    await one.curation.delete(one.member, second.id)
    assert await other.answering("can i go on a sabbatical") == "How long is annual leave?"


async def test_without_the_model_words_decide_and_another_models_vectors_do_not_count(
    database: Database, curated: Curated
) -> None:
    curated.embedding.failures = 1
    await curated.add("How long is annual leave?")
    assert await curated.answering("how long is the annual leave") == "How long is annual leave?"
    await curated.add("Where is the canteen?")
    other = Curated(database, curated.member, model="another")
    assert await other.answering("the canteen is where") == "Where is the canteen?"
    assert await other.answering("how much is annual vacation") == ""


@pytest.mark.parametrize(
    ("question", "weight"),
    [("Where is it?", 0.15), ("Wo ist der Eingang?", 0.525), ("איפה הכניסה?", 0.9), ("42", 0.15)],
)
def test_words_weigh_by_how_little_the_model_knows_the_language(question: str, weight: float) -> None:
    assert weight_of_terms(question) == pytest.approx(weight)


@pytest.mark.parametrize("dimensions", [0, 3, 768])
def test_vectors_of_other_dimensions_leave_it_to_the_words(dimensions: int) -> None:
    told = Asked(uuid4(), ("Where is the canteen?", "Lunch?"), bytes(2 * 2 * dimensions))
    table = PhrasingTable().with_changes([told, Asked(uuid4(), ("Why?",), None)])
    assert table.closest("the canteen is where", vector_of("?"), 0.15) == (told.faq_id, pytest.approx(1.0))


async def test_only_so_many_phrasings_are_held(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_HELD_PHRASINGS", 3)
    replica = Curated(database, Member(uuid4(), uuid4(), "owner"))
    tenants = [uuid4() for _ in range(4)]
    for tenant_id in tenants:
        replica.member = Member(tenant_id, uuid4(), "owner")
        await replica.add("How long is annual leave?", "Leave?")
    for _ in range(2):
        for tenant_id in tenants:
            assert await replica.answering("leave", tenant_id) == "How long is annual leave?"
    assert len(replica.matching._held) == 1


async def test_changes_at_once_leave_a_record_that_adds_up(pair: tuple[Curated, Curated], database: Database) -> None:
    """Whatever two replicas are asked to do at the same time, and whoever searches meanwhile."""
    dice = random.Random(4)
    faqs: list[Faq] = []

    async def change() -> None:
        replica, word = dice.choice(pair), str(dice.randrange(40))
        try:
            match dice.randrange(4):
                case 0 | 1:
                    faqs.append(await replica.add(f"What is {word}?"))
                case 2 if faqs:
                    await replica.curation.update(replica.member, dice.choice(faqs).id, Change(f"Who is {word}?"))
                case 3 if faqs:
                    await replica.curation.delete(replica.member, faqs.pop(dice.randrange(len(faqs))).id)
        except (AlreadyExists, Exhausted, NotFound):
            pass
        await dice.choice(pair).answering(f"What is {word}?")

    for _ in range(15):
        await asyncio.gather(*(change() for _ in range(12)))
    tenant_id = pair[0].member.tenant_id
    stored = await pair[0].store.newest(tenant_id, None, 1000)
    news = await pair[0].store.since(tenant_id, 0)
    assert news.total == len(stored) == len({faq.wording.question for faq in stored}) <= LIMIT
    assert all(asked.vectors for asked in news.changed)
    for replica in pair:
        for number in range(40):
            for question in (f"What is {number}?", f"Who is {number}?"):
                there = any(faq.wording.question == question for faq in stored)
                assert (await replica.answering(question) == question) is there


async def test_a_change_and_a_deletion_that_meet_both_end(pair: tuple[Curated, Curated], database: Database) -> None:
    """The change comes first to the set, the deletion to the FAQ, were it not to wait for the set too."""
    one, other = pair
    faq = await one.add("How long is annual leave?")
    blocker = await database.connect()
    held = blocker.transaction()
    await held.start()
    await blocker.execute("SELECT FROM faq_sets FOR UPDATE")
    changing = asyncio.create_task(one.curation.update(one.member, faq.id, Change(answer="Thirty days.")))
    await _waiting(blocker, 1)
    deleting = asyncio.create_task(other.curation.delete(other.member, faq.id))
    await _waiting(blocker, 2)
    await held.commit()
    await blocker.close()
    assert (await changing).wording.answer == "Thirty days."
    await deleting
    assert (await one.store.since(one.member.tenant_id, 0)).total == 0


async def _waiting(connection: asyncpg.Connection, count: int) -> None:
    """Until so many statements of this database wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while await connection.fetchval(waiting) < count:
            await asyncio.sleep(0.01)


async def test_of_the_same_question_at_once_one_is_taken(pair: tuple[Curated, Curated]) -> None:
    tries = (pair[place % 2].add("How long is annual leave?") for place in range(10))
    ended = await asyncio.gather(*tries, return_exceptions=True)
    [taken] = [faq for faq in ended if isinstance(faq, Faq)]
    refused = [refusal for refusal in ended if isinstance(refusal, AlreadyExists)]
    assert [refusal.facts for refusal in refused] == [{"faq_id": str(taken.id)}] * 9


async def test_two_changes_of_one_faq_at_once_are_both_there(pair: tuple[Curated, Curated]) -> None:
    one, other = pair
    faq = await one.add("How long is annual leave?")
    await asyncio.gather(
        one.curation.update(one.member, faq.id, Change(answer="Thirty days.")),
        other.curation.update(other.member, faq.id, Change(question="How long is leave?")),
    )
    after = await one.store.find(one.member.tenant_id, faq.id)
    assert after
    assert after.wording == Wording("How long is leave?", (), "Thirty days.")
