"""Passages that follow each other become one result."""

from dataclasses import dataclass
from uuid import UUID

from services.knowledge.neighbours import MOST, joined
from services.knowledge.passages import Passage


@dataclass(frozen=True)
class Found:
    document_id: UUID
    passage: Passage


def found(
    document: int, position: int, text: str | None = None, page: int | None = None, headings: tuple[str, ...] = ()
) -> Found:
    text = f"Text {position}." if text is None else text
    return Found(UUID(int=document), Passage(position, text, page, headings))


def shown(*passages: Found, limit: int = 5) -> list[tuple[int, int, str]]:
    """Of each result: document, position of its best passage, text."""
    results = joined(passages, limit)
    return [(best.document_id.int, best.passage.position, passage.text) for best, passage in results]


def test_neighbours_become_one_in_reading_order_at_the_better_place() -> None:
    assert shown(found(1, 8), found(2, 0), found(1, 7)) == [(1, 8, "Text 7.\nText 8."), (2, 0, "Text 0.")]


def test_a_citation_names_the_page_of_its_words() -> None:
    assert shown(found(1, 8, page=3), found(1, 7, page=3)) == [(1, 8, "Text 7.\nText 8.")]
    assert len(shown(found(1, 8, page=4), found(1, 7, page=3))) == 2


def test_headings_are_those_where_it_begins_and_later_ones_stand_in_the_text() -> None:
    guide, pay = ("Guide", "Notice"), ("Guide", "Pay")
    [(best, passage)] = joined([found(1, 8, headings=pay), found(1, 7, headings=guide), found(1, 9, headings=pay)], 5)
    assert best.passage.position == 8
    assert (passage.headings, passage.position) == (guide, 7)
    assert passage.text == "Text 7.\nPay\nText 8.\nText 9."
    assert best.passage.text == "Text 8."


def test_a_later_heading_stays_when_there_is_little_room() -> None:
    one, two = "a " * 589 + "a", "b " * 589 + "b"
    [(_, passage)] = joined([found(1, 1, two, headings=("New",)), found(1, 0, one, headings=("Old",))], 5)
    assert passage.text.startswith("a a ")
    assert "a\nNew\nb b" in passage.text
    assert len(passage.text) <= MOST


def test_one_that_is_alone_stays_as_it_is() -> None:
    alone = found(1, 3)
    assert joined([alone], 5) == [(alone, alone.passage)]
    assert len(shown(found(1, 3), found(1, 5))) == 2


def test_neighbours_in_different_documents_stay_apart() -> None:
    assert len(shown(found(1, 3), found(2, 4))) == 2


def test_one_between_two_closes_the_gap() -> None:
    apart = (found(1, 5), found(2, 0), found(1, 3))
    assert shown(*apart, found(1, 4)) == [(1, 5, "Text 3.\nText 4.\nText 5."), (2, 0, "Text 0.")]


def test_two_long_ones_keep_the_better_whole_and_of_the_other_the_sentences_beside_it() -> None:
    first, second = ("".join(f"This is sentence {number} of {name}. " for number in range(45)).strip() for name in "ab")
    assert MOST < len(first) + len(second) < 2 * 1300
    [(_, _, text)] = shown(found(1, 0, first), found(1, 1, second))
    assert text.startswith(f"{first}\nThis is sentence 0 of b.")
    assert text.endswith(" of b.")
    assert 0.9 * MOST < len(text) <= MOST
    [(_, _, text)] = shown(found(1, 1, second), found(1, 0, first))
    assert text.endswith(f"This is sentence 44 of a.\n{second}")
    assert text.startswith("This is sentence ")
    assert 0.9 * MOST < len(text) <= MOST


def test_a_third_one_is_taken_in_whole_or_not_at_all() -> None:
    long = "x" * 900
    assert [len(text) for _, _, text in shown(found(1, 0, long), found(1, 1, long), found(1, 2, long))] == [1801, 900]


def test_letters_without_any_space_are_cut_too_and_no_point_is_lost() -> None:
    letter = "ש\u05c1"
    [(_, _, text)] = shown(found(1, 1, letter * 600), found(1, 0, letter * 600))
    assert text.startswith("ש")
    assert len(text) <= MOST
    [(_, _, text)] = shown(found(1, 0, letter * 600), found(1, 1, letter * 600))
    assert text.endswith("\u05c1")


def test_what_has_no_place_is_not_drawn_in() -> None:
    assert shown(found(1, 1), found(2, 9), found(1, 2), limit=1) == [(1, 1, "Text 1.")]
    assert shown(found(1, 1), found(1, 2), limit=1) == [(1, 1, "Text 1.")]
    assert shown(found(1, 1), found(1, 2), limit=2) == [(1, 1, "Text 1.\nText 2.")]
    assert shown() == []
