"""Cutting documents into passages."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.knowledge.passages import ENOUGH, LEAST, MAX_HEADINGS, MOST, Block, Passage, cut, passage_id
from services.knowledge.text import seen

SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank. "


def texts(*blocks: Block) -> list[str]:
    return [passage.text for passage in cut(blocks)]


def test_short_blocks_share_a_passage() -> None:
    assert texts(Block("One."), Block("Two.")) == ["One.\nTwo."]


def test_a_passage_ends_with_a_block_once_it_has_enough() -> None:
    long = "x" * ENOUGH
    assert texts(Block(long), Block("Next.")) == [long, "Next."]


def test_a_long_block_is_cut_between_sentences() -> None:
    found = texts(Block(SENTENCE * 50))
    assert len(found) == 3
    assert all(ENOUGH < len(text) <= MOST and text.endswith("bank.") for text in found)
    assert " ".join(found) == (SENTENCE * 50).strip()


@pytest.mark.parametrize("sentence", ["我们在河边看到了一只狐狸。", "هل رأيت الثعلب؟ ", "क्या आपने लोमड़ी देखी। "])
def test_sentences_of_other_scripts_are_kept_whole(sentence: str) -> None:
    found = texts(Block(sentence * 300))
    assert len(found) > 2
    assert all(text.endswith(sentence.strip()[-1]) and text.startswith(sentence[:3]) for text in found)


def test_a_sentence_that_is_too_long_is_cut_at_a_space() -> None:
    found = texts(Block("word " * 1000))
    assert all(len(text) <= MOST and text.endswith("word") for text in found)


def test_a_word_that_is_too_long_is_cut_before_a_whole_character() -> None:
    found = texts(Block("q\u0331" * 2000))
    assert all(text.startswith("q") for text in found)
    assert "".join(found) == "q\u0331" * 2000


def test_a_passage_knows_where_it_begins() -> None:
    blocks = [Block("a" * LEAST, 1, ("Part",)), Block("b" * ENOUGH, 1, ("Part",)), Block("c", 3, ("Part", "Two"))]
    first, second = cut(blocks)
    assert (first.position, first.page, first.headings) == (0, 1, ("Part",))
    assert (second.position, second.page, second.headings) == (1, 3, ("Part", "Two"))


def test_a_page_is_never_shared() -> None:
    first, second = cut([Block("Short.", 1), Block("Also short.", 2)])
    assert (first.text, first.page) == ("Short.", 1)
    assert (second.text, second.page) == ("Also short.", 2)


def test_a_new_heading_begins_a_passage() -> None:
    found = list(cut([Block("a" * LEAST, None, ("One",)), Block("b", None, ("Two",))]))
    assert [(passage.text, passage.headings) for passage in found] == [("a" * LEAST, ("One",)), ("b", ("Two",))]


def test_short_sections_share_a_passage_that_names_them() -> None:
    found = list(cut([Block("a", None, ("Top", "One")), Block("b", None, ("Top", "Two"))]))
    assert found == [Passage(0, "a\nTwo\nb", None, ("Top", "One"))]
    assert found[0].searchable_text == "Top > One\na\nTwo\nb"


def test_headings_are_bounded() -> None:
    [passage] = cut([Block("text", None, ("\u200b", *(f"{number} {'h' * 500}" for number in range(20))))])
    assert len(passage.headings) == MAX_HEADINGS
    assert all(len(heading) == 200 for heading in passage.headings)


def test_nothing_to_see_makes_no_passage() -> None:
    assert texts(Block(""), Block(" \n\t"), Block("\x00\u200b\U000e0041")) == []


@given(st.lists(st.tuples(st.text(max_size=4000), st.lists(st.text(max_size=300), max_size=3)), max_size=6))
def test_every_text_is_cut_within_the_limits_and_without_loss(parts: list[tuple[str, list[str]]]) -> None:
    blocks = [Block(text, None, tuple(headings)) for text, headings in parts]
    found = list(cut(blocks))
    assert [passage.position for passage in found] == list(range(len(found)))
    assert all(0 < len(passage.text) <= MOST for passage in found)
    said = "".join("".join(passage.text.split()) for passage in found)
    for block in blocks:
        for line in seen(block.text).splitlines():
            assert "".join(line.split()) in said


def test_the_id_of_a_passage_is_always_the_same() -> None:
    document_id = UUID("6f0f4f5e-0f0e-4b8e-8f5e-2f6f0a0b0c0d")
    assert passage_id(document_id, 3) == passage_id(document_id, 3)
    assert len({passage_id(uuid4(), 0), passage_id(document_id, 0), passage_id(document_id, 1)}) == 3


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("a\x00b\x1b[31m", "ab[31m"),
        ("ig\u200bno\u2060re\ufeff", "ignore"),
        ("tag\U000e0041\U000e007fs", "tags"),
        ("\u202egnp.exe\u2066", "gnp.exe"),
        ("variation\ufe0f\U000e0100", "variation"),
        ("soft\xadhyphen", "softhyphen"),
        ("latin\u200djoiner", "latinjoiner"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("one\r\ntwo\x0cthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a \t b\n\n\n \n c\xa0d", "a b\n\nc d"),
        ("e\u0301", "é"),
        ("half\ud83d", "half"),
        ("שלום עולם", "שלום עולם"),
    ],
)
def test_only_what_a_reader_sees_is_kept(hidden: str, shown: str) -> None:
    assert seen(hidden) == shown
