"""The terms of texts in many languages, and what they are worth."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import snowballstemmer

from services.knowledge.fusion import ENGLISH, LATIN, OTHER, fused, lexical_weight
from services.knowledge.lexical import Rarity, dimension, passage_vector, rarity
from services.knowledge.terms import is_english, question_terms, terms
from tests.knowledge.test_index import HOSTILE


def shared(question: str, passage: str) -> float:
    """How much of the question's weight is in the passage."""
    weights = question_terms(question)
    return sum(weight for term, weight in weights.items() if term in terms(passage)) / sum(weights.values())


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("CATS", "the cat"),
        ("running costs", "what it costs to run"),
        ("il6", "interleukin IL-6"),
        ("p 53", "p53"),
        ("β-catenin", "beta-catenin"),
        ("cafe", "café"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("שלום", "שָׁלוֹם"),
        ("כתב", "כֹּתֵב"),
        ("السلام", "السَّلَامُ"),
        ("مدرسه", "مـــدرســـة"),
        ("أحمد", "احمد"),
        ("ελληνικα", "Ελληνικά"),
        ("ёлка", "елка"),
    ],
)
def test_spellings_of_the_same_have_the_same_terms(question: str, passage: str) -> None:
    assert shared(question, passage) == 1.0


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("ממשלה", "והממשלה החליטה", "והמכונית נסעה"),
        ("كتاب", "وبالكتاب", "والسيارة"),
        ("книга", "в книгах", "в городах"),
        ("数据库", "分布式数据库系统", "分布式机器学习"),
        ("データ", "新しいデータベース", "新しいカメラ"),
        ("ข้อมูล", "ฐานข้อมูลใหม่", "กล้องใหม่"),
        ("Welche Versicherung", "Die Krankenversicherungspflicht", "Die Strassenverkehrsordnung"),
    ],
)
def test_words_are_found_inside_others(question: str, right: str, wrong: str) -> None:
    assert shared(question, right) > 2 * shared(question, wrong)


def test_a_name_in_latin_letters_counts_like_a_hebrew_word() -> None:
    weights = question_terms("Globex ממשלה")
    hebrew = sum(weight for term, weight in weights.items() if not term.isascii())
    assert weights["globex"] == pytest.approx(hebrew, rel=0.25)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("What is the notice period?", True),
        ("ADAR1 binds Dicer", True),
        ("The café is in São Paulo and it is open", True),
        ("Wie lange ist die Frist?", False),
        ("¿Cuál es la capital de España?", False),
        ("Việt Nam có bao nhiêu tỉnh?", False),
    ],
)
def test_other_languages_are_known_by_their_small_words_and_accents(text: str, english: bool) -> None:
    assert is_english(text) == english


def test_the_weight_follows_what_the_model_knows() -> None:
    assert lexical_weight("What is the notice period?") == ENGLISH
    assert lexical_weight("Wie lange ist die Frist?") == LATIN
    assert lexical_weight("מה תקופת ההודעה?") == lexical_weight("通知期是多久？") == OTHER
    assert ENGLISH < lexical_weight("מה תקופת ההודעה של Globex?") < OTHER
    assert lexical_weight("7919") == ENGLISH


def test_rare_terms_are_worth_more_and_common_ones_are_not_asked_for() -> None:
    known = rarity(["all stars shine"] * 6 + ["all cats shine", "all cats purr", "all dogs", "all"])
    vector = known.question_vector("all cats shine purr")
    assert dimension("shine") not in vector
    assert vector[dimension("purr")] > vector[dimension("cat")] > 0
    assert set(Rarity().question_vector("all cats shine")) == {dimension(term) for term in terms("all cats shine")}


def test_a_passage_says_less_with_each_repetition() -> None:
    once, twice, often = (passage_vector("cat " * count)[dimension("cat")] for count in (1, 2, 50))
    assert once < twice < often < 2


@pytest.mark.parametrize("text", [*HOSTILE, "!" * 2000, "x" * 2000, "你" * 2000, "\u0301" * 2000])
def test_any_text_has_vectors_that_the_index_takes(text: str) -> None:
    passage, question = passage_vector(text), Rarity().question_vector(text)
    assert passage
    for key, weight in (*passage.items(), *question.items()):
        assert 0 <= key < 2**32 - 1
        assert 0 < weight < 1e5


def test_scores_are_fused_relative_to_the_best() -> None:
    dense, both, lexical, far = (UUID(int=number) for number in range(4))
    near, sharing = {dense: 0.8, both: 0.7, far: 0.1}, {both: 40.0, lexical: 50.0}
    assert fused(near, sharing, 0.3) == [both, dense, lexical, far]
    assert fused(near, sharing, 0.9) == [lexical, both, dense, far]
    assert fused({}, sharing, 0.3) == [lexical, both]
    assert fused(near, {}, 0.9) == [dense, both, far]
    assert fused({}, {}, 0.5) == []


STEMS = [f"{first}{second}{third}" for first in "bdfgklmnprst" for second in "aeiou" for third in ("rt", "nd", "ll")]
ENDINGS = ("", "s", "ing", "ed", "ization", "fulness", "ational", "ively", "ement", "ability")


def test_terms_are_the_same_in_every_thread() -> None:
    words = [f"{stem}{ending}" for stem in STEMS for ending in ENDINGS]
    texts = [" ".join(words[place : place + 40]) for place in range(0, len(words), 40)] * 4
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(terms, texts))
    assert made == [terms(text) for text in texts]
    assert {term for found in made for term in found} == {snowballstemmer.stemmer("english").stemWord(w) for w in words}
