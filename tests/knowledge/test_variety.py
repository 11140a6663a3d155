"""Copies and floods among what is found."""

from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import pytest

from services.knowledge.passages import Passage
from services.knowledge.variety import varied


@dataclass(frozen=True)
class Found:
    document_id: UUID
    passage: Passage


def found(*entries: tuple[int, str]) -> list[Found]:
    return [Found(UUID(int=document), Passage(place, text)) for place, (document, text) in enumerate(entries)]


def places(passages: list[Found], limit: int) -> list[int]:
    return [one.passage.position for one in islice(varied(passages, limit), limit)]


LONG = " ".join(f"word{number}" for number in range(100))
UNSPACED = "".join(chr(0x4E00 + number) for number in range(100))


@pytest.mark.parametrize("text", [LONG, UNSPACED])
def test_a_copy_with_another_end_comes_last(text: str) -> None:
    passages = found((1, text), (2, text + " v2"), (3, "something else"))
    assert places(passages, 3) == [0, 2, 1]
    assert places(passages, 2) == [0, 2]


def test_passages_that_share_half_of_their_words_are_no_copies() -> None:
    half = " ".join(LONG.split()[:50] + [f"other{number}" for number in range(50)])
    assert places(found((1, LONG), (2, half)), 2) == [0, 1]


def test_one_document_does_not_take_every_place() -> None:
    passages = found(*((1, f"page {number}") for number in range(5)), (2, "b"), (3, "c"), (4, "d"))
    assert places(passages, 5) == [0, 1, 2, 5, 6]
    assert places(passages, 1) == [0]


def test_a_document_that_is_alone_takes_all_places() -> None:
    passages = found(*((1, f"page {number}") for number in range(6)))
    assert places(passages, 5) == [0, 1, 2, 3, 4]
    assert places(found((1, "a"), (1, "a"), (1, "b"), (1, "c")), 3) == [0, 2, 3]


def test_nothing_found_is_nothing() -> None:
    assert places([], 5) == []
