"""The words of a text that were searched for: what a snippet is chosen by, and what is marked in it.

Words are compared by the terms of search (terms.py), so that what was found by its stem is marked, too. Whole words
are marked, with their accents and points:

- in Latin letters, what has its stem in common with a word of the question, or a part, as `p53` and `53`,
- else what has most groups of letters in common with one, counted in the shorter of both: `ההודעה` and `הודעה`,
  `Kündigungsfrist` and `Kündigung`,
- in scripts without spaces, the pairs of letters that the question has.

Small words are left out: English function words, and of at most three letters those that most passages have.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import nlargest
from itertools import groupby, pairwise
from operator import itemgetter

from services.knowledge.cuts import next_whole, whole
from services.knowledge.terms import GROUP_MARK, UNSPACED, folded_text, is_english, word_terms

_ENOUGH_GROUPS = 0.6
_SMALL_LETTERS = 3
_MOST_WORDS = 32
"""Of a question as long as a page; those of most worth."""
_LEAST_WORTH = 0.1
"""A word that most passages have is still one that was searched for."""


_MARKS = frozenset(letter for letter in map(chr, range(0x300, 0x20000)) if unicodedata.category(letter)[0] == "M")


def _ranges(letters: Iterable[str]) -> str:
    """As in a character class."""
    codes = enumerate(sorted(map(ord, letters)))
    runs = ([code for _, code in run] for _, run in groupby(codes, key=lambda pair: pair[1] - pair[0]))
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


_LETTERS = f"[^\\W_{UNSPACED}]"
_WORD = re.compile(
    f"(?P<unspaced>[{UNSPACED}]+)"
    f"|{_LETTERS}+(?:(?:[{_ranges(_MARKS)}]|[\u200c\u200d])+{_LETTERS}*|-(?=[0-9A-Za-z\u00c0-\u024f]){_LETTERS}+)*"
)


@dataclass(frozen=True)
class Match:
    """A place in a text, in code points, and the number of the word that was searched for."""

    begin: int
    end: int
    word: int


class Wanted:
    """The words of a question. `worths`: what each is worth in telling passages apart, by its number."""

    def __init__(self, question: str, worth: Callable[[str], float]) -> None:
        """`worth` of a term: 0 for one that most passages have."""
        self.worths: list[float] = []
        self._english = is_english(question)
        self._terms: dict[str, int] = {}
        self._initials: set[str] = set()
        self._groups: list[tuple[int, frozenset[str]]] = []
        self._all_groups: frozenset[str] = frozenset()
        self._pairs: dict[str, int] = {}
        words: dict[str, float] = {}
        for match in _WORD.finditer(question):
            if match["unspaced"]:
                self._want_pairs(_units(match[0]), worth)
            elif (best := self._worth(word := folded_text(match[0]), worth)) is not None:
                words[word] = best
        for word, best in nlargest(_MOST_WORDS, words.items(), key=itemgetter(1)):
            self._want(word, best)

    def matches(self, text: str) -> list[Match]:
        """In order, none over another."""
        if not self.worths:
            return []
        matches: list[Match] = []
        for match in self._found(text):
            begin = max(whole(text, match.begin), matches[-1].end if matches else 0)
            end = next_whole(text, match.end)
            if begin < end:
                matches.append(replace(match, begin=begin, end=end))
        return matches

    def _worth(self, word: str, worth: Callable[[str], float]) -> float | None:
        """None for a small word."""
        terms, groups = _parts(word, self._english)
        best = max(map(worth, terms or groups), default=0.0)
        return best if best or (len(word) > _SMALL_LETTERS and (terms or groups)) else None

    def _want(self, word: str, worth: float) -> None:
        terms, groups = _parts(word, self._english)
        number = self._number(worth)
        for term in terms:
            self._terms.setdefault(term, number)
            self._initials.add(term[0])
        if len(groups) > 1:
            self._groups.append((number, groups))
            self._all_groups |= groups

    def _want_pairs(self, units: Sequence[str], worth: Callable[[str], float]) -> None:
        pairs = [one + other for one, other in pairwise(units)]
        for unit in pairs or units:
            self._pairs.setdefault(unit, self._number(worth(GROUP_MARK + unit if pairs else unit)))

    def _number(self, worth: float) -> int:
        self.worths.append(max(worth, _LEAST_WORTH))
        return len(self.worths) - 1

    def _found(self, text: str) -> Iterator[Match]:
        folded, initials = folded_text(text), self._initials
        # Then folding has changed letter for letter, and words need not be folded one by one.
        alike = len(folded) == len(text) and (text.isascii() or _MARKS.isdisjoint(text))
        for match in _WORD.finditer(text):
            begin, end = match.span()
            if match.lastgroup:
                yield from self._in_run(begin, match[0])
                continue
            word = folded[begin:end] if alike else folded_text(match[0])
            if self._english and word[:1] not in initials and word.isascii() and word.isalpha():
                continue  # a stem begins as its word does
            if (number := self._like(word)) is not None:
                yield Match(begin, end, number)

    def _like(self, folded: str) -> int | None:
        terms, groups = _parts(folded, self._english)
        for term in terms:
            if (number := self._terms.get(term)) is not None:
                return number
        if self._all_groups.isdisjoint(groups):
            return None
        for number, wanted in self._groups:
            common = len(wanted & groups)
            if common > 1 and common >= _ENOUGH_GROUPS * min(len(groups), len(wanted)):
                return number
        return None

    def _in_run(self, begin: int, run: str) -> Iterator[Match]:
        """Pairs that touch each other are one match, numbered by the one of most worth."""
        units = _units(run)
        match: Match | None = None
        for place, unit in enumerate(units):
            pair = unit + units[place + 1] if place + 1 < len(units) else ""
            number, length = self._pairs.get(pair), 2
            if number is None:
                number, length = self._pairs.get(unit), 1
            if number is None:
                continue
            first, last = begin + place, begin + place + length
            if match and first <= match.end:
                better = max(match.word, number, key=self.worths.__getitem__)
                match = Match(match.begin, last, better)
            else:
                if match:
                    yield match
                match = Match(first, last, number)
        if match:
            yield match


@lru_cache(maxsize=20_000)
def _parts(folded: str, english: bool) -> tuple[frozenset[str], frozenset[str]]:
    """The terms of a word, and its groups of letters apart from them."""
    if not (folded.isalnum() or _MARKS.isdisjoint(folded)):
        # Of a script that spells vowels by marks, between which the terms are no words.
        bounded = f"^{folded}$"
        return frozenset((folded,)), frozenset(bounded[place : place + 3] for place in range(len(folded)))
    found = word_terms(folded, english=english)
    groups = frozenset(term for term in found if term[0] == GROUP_MARK)
    return found - groups, groups


def _units(run: str) -> Sequence[str]:
    """Each character as the terms have it."""
    return [folded_text(character) for character in run]
