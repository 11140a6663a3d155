"""The terms of a text: what the lexical side of search compares. The same for passages and questions.

Text is folded first: case, compatibility forms, accents, the vowel points of Hebrew and Arabic, letters that one word
is spelt with in several ways. Then it depends on how a language spells words:

- English: function words are left out, the others are stemmed. `IL-6` is also `il6`, `p53` also `p` and `53`.
- Other languages in Latin letters: the same, and each word's groups of four letters, because compounds and endings
  hide words there and no stemmer is certain of the language.
- Other scripts with spaces between words (Hebrew, Arabic, Cyrillic, Greek, Hindi): words and their groups of three
  letters. A prefix such as the Hebrew article then costs a group or two instead of the whole word.
- Scripts without spaces (Chinese, Japanese, Thai): letters and pairs of letters.

In a question a word in Latin letters weighs as much as a word of another script with all its groups, so that a name
inside a Hebrew question counts like a Hebrew word.
"""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import snowballstemmer

from services.knowledge import language
from services.knowledge.language import FUNCTION_WORDS

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_LATIN = "0-9a-z\u00df-\u024f"
_WORD = re.compile(f"(?P<latin>[{_LATIN}]+)|(?P<unspaced>[{UNSPACED}]+)|(?P<spaced>[^\\W_{_LATIN}{UNSPACED}]+)")
_COMPOUND = re.compile(f"[{_LATIN}]+(?:-[{_LATIN}]+)+")
_POINTS = re.compile(
    "[\u0300-\u036f"  # accents, once they stand alone
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"  # Arabic, with the stretching
)
_SAME_LETTERS = str.maketrans(
    {"ך": "כ", "ם": "מ", "ן": "נ", "ף": "פ", "ץ": "צ", "ٱ": "ا", "ى": "ي", "ة": "ه", "ک": "ك", "ی": "ي"}
)
_LONE_GREEK = re.compile("(?<![\u0370-\u03ff])[α-ω](?![\u0370-\u03ff])")
_DIGITS_OR_NOT = re.compile(r"\d+|\D+")
_LATIN_GROUP, _GROUP, _PAIR = 4, 3, 2
GROUP_MARK = "#"
"""Before a group of letters, which is not the word that is spelt like it."""
_LATIN_WORD_WEIGHT, _PART_WEIGHT = 5.0, 2.5


class _Stemmer(threading.local):
    """One for each thread: it works on what it holds."""

    def __init__(self) -> None:
        self.stem = snowballstemmer.stemmer("english").stemWord


_stemmer = _Stemmer()


def terms(text: str) -> Counter[str]:
    """The terms of a text and how often each stands in it."""
    return Counter(term for term, _ in _weighted(text))


def question_terms(text: str) -> dict[str, float]:
    """The terms of a question and what each weighs beside the others, its rarity aside."""
    weights: dict[str, float] = {}
    for term, weight in _weighted(text):
        weights[term] = weights.get(term, 0.0) + weight
    return weights


def word_terms(folded: str, *, english: bool) -> frozenset[str]:
    """The terms of one word, folded, of a text that is English or not. GROUP_MARK begins those of groups of letters."""
    return frozenset(term for term, _ in _of_words(folded, _words_in(folded), english))


def is_english(text: str) -> bool:
    """Whether the words in Latin letters are English: taken for it unless more of them speak against it."""
    return language.is_english(text, [found["latin"] for found in _WORD.finditer(folded_text(text)) if found["latin"]])


def _weighted(text: str) -> Iterator[tuple[str, float]]:
    folded = folded_text(text)
    words = _words_in(folded)
    english = language.is_english(text, [word for kind, word in words if kind == "latin"])
    return _of_words(folded, words, english)


def _words_in(folded: str) -> Sequence[tuple[str | None, str]]:
    """Each with the name of its kind."""
    return [(match.lastgroup, match[0]) for match in _WORD.finditer(folded)]


def _of_words(folded: str, words: Sequence[tuple[str | None, str]], english: bool) -> Iterator[tuple[str, float]]:
    for match in _COMPOUND.finditer(folded):
        yield match[0].replace("-", ""), _LATIN_WORD_WEIGHT
    for kind, word in words:
        if kind == "latin":
            yield from _latin(word, english)
        elif kind == "spaced":
            yield word, 1.0
            yield from _groups(f"^{word}$", _GROUP)
        else:
            yield from ((letter, 1.0) for letter in word)
            yield from _groups(word, _PAIR)


def _latin(word: str, english: bool) -> Iterator[tuple[str, float]]:
    if word in FUNCTION_WORDS:
        return
    yield _stem(word), _LATIN_WORD_WEIGHT
    parts: list[str] = _DIGITS_OR_NOT.findall(word)
    if len(parts) > 1:
        yield from ((_stem(part), _PART_WEIGHT) for part in parts)
    if not english:
        yield from _groups(f"^{word}$", _LATIN_GROUP)


def _groups(word: str, size: int) -> Iterator[tuple[str, float]]:
    return ((GROUP_MARK + word[begin : begin + size], 1.0) for begin in range(len(word) - size + 1))


def folded_text(text: str) -> str:
    """Without what spellings of the same word differ in; it may be shorter or longer."""
    if text.isascii():
        return text.lower()
    text = _POINTS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    text = unicodedata.normalize("NFC", text).translate(_SAME_LETTERS)
    return _LONE_GREEK.sub(lambda letter: unicodedata.name(letter[0]).rpartition(" ")[2].lower(), text)


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    return str(_stemmer.stem(word))
