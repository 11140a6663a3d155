"""How a conversation gets its title."""

import pytest

from services.session.conversation import title_from


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How long may I stay?", "How long may I stay?"),
        ("\n \n  How  long\tmay I stay?\nThanks!", "How long may I stay?"),
        ("כמה זמן אפשר להישאר?", "כמה זמן אפשר להישאר?"),
        ("x" * 80, "x" * 80),
        (" \n\t", ""),
    ],
)
def test_the_first_line_with_words_becomes_the_title(question: str, title: str) -> None:
    assert title_from(question) == title


def test_a_long_line_is_cut_after_a_word() -> None:
    assert title_from("word " * 15 + "and " + "y" * 40) == "word " * 15 + "and…"


def test_a_line_is_not_cut_inside_a_word_that_ends_at_the_limit() -> None:
    assert title_from("x" * 40 + " " + "y" * 39 + " z") == "x" * 40 + "…"


def test_a_long_word_is_cut_where_it_must_be() -> None:
    assert title_from("x" * 81) == "x" * 79 + "…"


def test_a_title_never_has_more_than_80_characters() -> None:
    for length in range(160):
        for step in (1, 7, 79, 80, 81):
            question = "".join(" " if index % step == 0 else "a" for index in range(1, length))
            assert len(title_from(question)) <= 80
