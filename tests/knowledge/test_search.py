"""Search in many languages, on a real Milvus, beside an embedding model that knows English alone."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from random import Random
from uuid import UUID, uuid4

import pytest

from services.knowledge.document import Document, Visibility
from services.knowledge.index import PassageIndex, PassageIndexes
from services.knowledge.indexing import Extracted
from services.knowledge.passages import Passage
from services.knowledge.search import Search, Vector
from services.knowledge.vocabulary import Vocabulary
from stack.mesh import Mesh
from tests.knowledge.conftest import a_file, a_member
from tests.knowledge.fakes import FakeRecord, vector_of
from tests.knowledge.index_fakes import FIRST, indexes_of

SAME_MEANING = {"vacation": "leave", "holidays": "leave", "long": "notice", "quit": "notice"}


class EnglishModel:
    """Implements Embedding. Other scripts come out as noise: near each other, however little they have in common."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        return [self._english(text) if text.isascii() else self._noise(text) for text in texts]

    def _english(self, text: str) -> Vector:
        words = text.lower().strip("?.").split()
        return vector_of(" ".join(SAME_MEANING.get(word, word) for word in words))

    def _noise(self, text: str) -> Vector:
        random = Random(hashlib.sha256(text.encode()).digest())
        vector = [1 + random.random() / 4 for _ in range(384)]
        length = sum(value * value for value in vector) ** 0.5
        return [value / length for value in vector]


@pytest.fixture(scope="module")
async def index(stores: Mesh) -> AsyncIterator[PassageIndex]:
    async with PassageIndexes(f"http://{stores.address('milvus')}") as indexes:
        await indexes.create(FIRST)
        yield indexes.of(FIRST)


class Library:
    """An organisation whose document says these texts."""

    def __init__(self, index: PassageIndex) -> None:
        self._index, self._model, self._record = index, EnglishModel(), FakeRecord()
        indexes = indexes_of(self._record, self._model, index)
        self._search = Search(indexes, Vocabulary(self._record), self._record)
        self._member = a_member()

    async def hold(self, *texts: str, visibility: Visibility = Visibility.ORGANISATION) -> Document:
        document = await self._record.add_document(
            self._member, uuid4(), a_file(visibility=visibility, allow_duplicate=True)
        )
        begun = await self._record.begin_indexing(document.tenant_id, document.id)
        assert begun
        passages = [Passage(position, text) for position, text in enumerate(texts)]
        await self._record.announce(begun, Extracted("text/plain", 0, len(texts), iter(passages)))
        await self._index.write(begun, passages, await self._model.embed(texts))
        await self._record.add_passages(begun, passages)
        await self._record.complete(begun, len(passages), FIRST.id)
        return document

    async def find(
        self, question: str, limit: int = 3, tenant_id: UUID | None = None, user_id: UUID | None = None
    ) -> list[str]:
        user_id = user_id or self._member.user_id
        found = await self._search(tenant_id or self._member.tenant_id, question, limit, user_id)
        return [passage.passage.text for passage in found]


@pytest.fixture
def library(index: PassageIndex) -> Library:
    return Library(index)


async def test_a_private_document_is_found_by_its_uploader_alone(library: Library) -> None:
    await library.hold("The offer to the other company is two million.", visibility=Visibility.PRIVATE)
    await library.hold("Lunch is served on the second floor.")
    assert await library.find("offer to the company", limit=1) == ["The offer to the other company is two million."]
    assert await library.find("offer to the company", user_id=uuid4()) == ["Lunch is served on the second floor."]


HEBREW = (
    "תקופת ההודעה המוקדמת היא שלושה חודשים לכל עובד.",
    "החנייה במרתף פתוחה לעובדים עד שמונה בערב.",
    "הוצאות הנסיעה מוחזרות בסוף כל חודש.",
    "ארוחת הצהריים מוגשת בקומה השנייה.",
)
ARABIC = (
    "فترة الإشعار ثلاثة أشهر لكل موظف.",
    "موقف السيارات في الطابق السفلي مفتوح حتى المساء.",
    "تُدفع نفقات السفر في نهاية كل شهر.",
    "يُقدَّم الغداء في الطابق الثاني.",
)
CHINESE = (
    "每位员工的通知期为三个月。",
    "地下停车场向员工开放至晚上八点。",
    "差旅费用在每月月底报销。",
    "午餐在二楼供应。",
)
RUSSIAN = (
    "Срок уведомления составляет три месяца.",
    "Подземная парковка открыта до восьми вечера.",
    "Командировочные расходы возмещаются в конце месяца.",
    "Обед подают на втором этаже.",
)
ENGLISH = (
    "Annual leave is thirty days a year.",
    "Notice is three months.",
    "Parking costs twenty a month.",
    "The form XK-4711 is due in May.",
)


@pytest.mark.parametrize(
    ("texts", "question", "place"),
    [
        (HEBREW, "מהי תקופת הודעה?", 0),
        (HEBREW, "מתי סוגרים את החניה?", 1),
        (HEBREW, "החזר הוצאות נסיעה", 2),
        (ARABIC, "ما هي فترة الاشعار؟", 0),
        (ARABIC, "نفقات السفر", 2),
        (ARABIC, "مَوْقِفُ السَّيَّارَاتِ", 1),
        (ARABIC, "من يقدم الغداء", 3),
        (CHINESE, "通知期是多久", 0),
        (CHINESE, "停车场几点关门", 1),
        (CHINESE, "怎么报销差旅费", 2),
        (RUSSIAN, "парковки", 1),
        (RUSSIAN, "возмещение расходов", 2),
    ],
)
async def test_what_the_model_does_not_know_is_found_by_its_letters(
    library: Library, texts: Sequence[str], question: str, place: int
) -> None:
    await library.hold(*texts)
    assert (await library.find(question))[0] == texts[place]


async def test_points_make_no_difference(library: Library) -> None:
    await library.hold(*ARABIC, *HEBREW)
    assert (await library.find("فَتْرَةُ الْإِشْعَارِ"))[0] == (await library.find("فترة الاشعار"))[0] == ARABIC[0]
    assert (await library.find("תְּקוּפַת הַהוֹדָעָה"))[0] == (await library.find("תקופת ההודעה"))[0] == HEBREW[0]


@pytest.mark.parametrize(("question", "place"), [("vacation days", 0), ("how long before I quit", 1), ("xk 4711", 3)])
async def test_english_is_found_by_meaning_and_by_words(library: Library, question: str, place: int) -> None:
    await library.hold(*ENGLISH)
    assert (await library.find(question))[0] == ENGLISH[place]


async def test_languages_live_side_by_side(library: Library) -> None:
    await library.hold(*HEBREW, *ARABIC, *CHINESE, *RUSSIAN, *ENGLISH)
    for question, text in (("通知期", CHINESE[0]), ("תקופת הודעה", HEBREW[0]), ("vacation days", ENGLISH[0])):
        assert (await library.find(question))[0] == text


async def test_another_organisation_finds_nothing_in_any_language(library: Library) -> None:
    await library.hold(*HEBREW, *ENGLISH)
    for question in ("תקופת הודעה", "vacation days"):
        assert await library.find(question, tenant_id=uuid4()) == []
