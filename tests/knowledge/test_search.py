"""Search in many languages, on a real Milvus, beside an embedding model that knows English alone."""

from collections.abc import Sequence
from uuid import uuid4

import pytest

from services.knowledge.document import Visibility
from services.knowledge.passages import Passage
from tests.knowledge.library import Library


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


async def test_neighbours_are_one_result_that_reads_on(library: Library) -> None:
    passages = [Passage(place, text, 1, ("Handbook",)) for place, text in enumerate(ENGLISH)]
    await library.hold_passages(*passages)
    [found] = await library.search("How long are notice and annual leave?", limit=4)
    assert found.passage.text == "\n".join(ENGLISH)
    assert (found.passage.page, found.passage.headings) == (1, ("Handbook",))
    [best] = await library.search("How long are notice and annual leave?", limit=1)
    assert best.id == found.id
    assert best.passage.text in ENGLISH


async def test_what_was_found_comes_with_the_piece_that_fits(library: Library) -> None:
    before = "Nobody asks for this sentence about the weather of last year. " * 8
    await library.hold(f"{before}Notices are given three months ahead. {before}".strip())
    [found] = await library.search("When is notice given?")
    assert len(found.snippet.text) <= 300
    marked = [found.snippet.text[begin:end] for begin, end in found.snippet.highlights]
    assert marked == ["Notices", "given"]


TOPICS = (
    ("notice", "is three months"),
    ("parking", "costs twenty a month"),
    ("lunch", "is served at noon"),
    ("travel", "begins on Monday"),
    ("training", "takes a week"),
)


async def test_a_follow_up_is_understood_by_what_was_said_before(library: Library) -> None:
    towns = ("Paris", "Berlin", "Rome", "Oslo", "Bern")
    about = [f"In {town} the {topic} {fact}." for town in towns for topic, fact in TOPICS]
    await library.hold_apart(*about)
    history = ("How long is notice in Paris?",)
    assert (await library.find("And in Berlin?", history=history))[0] == "In Berlin the notice is three months."
    alone = await library.find("What does parking cost in Rome?")
    assert alone[0] == (await library.find("What does parking cost in Rome?", history=history))[0]


async def test_history_that_nobody_can_see_changes_nothing(library: Library) -> None:
    await library.hold_apart(*ENGLISH)
    alone = await library.find("vacation days")
    assert await library.find("vacation days", history=("", "\u200b", "\U000e0041\U000e0042")) == alone
