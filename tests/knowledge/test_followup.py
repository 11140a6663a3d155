"""What a follow-up question takes from what was said before."""

import math

import pytest

from services.knowledge.followup import MOST_TERMS, question
from services.knowledge.lexical import Rarity, dimension, rarity
from tests.knowledge.fakes import vector_of


def test_a_question_alone_is_itself() -> None:
    alone = question("And in Berlin?")
    assert (alone.text, alone.texts, alone.whole) == ("And in Berlin?", ["And in Berlin?"], "And in Berlin?")
    vector = vector_of(alone.text)
    assert alone.direction([vector]) == vector
    assert alone.terms(Rarity()) == Rarity().question_vector("And in Berlin?")


def test_the_direction_leans_to_the_last_message_and_less_to_older_ones() -> None:
    asked = question("berlin", ["parking", "notice"])
    own, last, older = ([float(place == axis) for place in range(3)] for axis in range(3))
    assert asked.texts == ["berlin", "notice", "parking"]
    direction = asked.direction([own, last, older])
    assert math.hypot(*direction) == pytest.approx(1)
    assert direction[0] > direction[1] > direction[2] > 0


def test_terms_of_the_history_weigh_less_than_those_of_the_question() -> None:
    terms = question("Berlin", ["Parking in Berlin", "notice"]).terms(Rarity())
    berlin, notice, parking = (terms[dimension(term)] for term in ("berlin", "notic", "park"))
    assert berlin == Rarity().question_vector("Berlin")[dimension("berlin")]
    assert berlin > notice > parking > 0


def test_only_what_can_be_seen_counts() -> None:
    asked = question(" Ber\u200blin\U000e0041 ", ["", "\u200b", " no\u00adtice "])
    assert (asked.text, asked.before) == ("Berlin", ("notice",))


def test_a_long_message_adds_no_more_than_its_rarest_terms() -> None:
    known = rarity(["common words stand here"] * 30 + ["other"] * 100)
    page = " ".join(f"unknown{number}x" for number in range(500)) + " common words"
    terms = question("Berlin", [page]).terms(known)
    assert len(terms) == 1 + MOST_TERMS
    assert dimension("common") not in terms
    assert dimension("berlin") in terms
