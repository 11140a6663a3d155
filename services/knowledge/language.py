"""Whether a text in Latin letters is English: the language that the embedding model knows and that can be stemmed.

Short questions carry little to tell by, so English is assumed until more small words and accents speak against it than
small words for it.
"""

from collections.abc import Iterable


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


FUNCTION_WORDS = _words(
    "a about all also an and any are as at be been being both but by can could did do does during each for from had",
    "has have he her his how i if in into is it its may me more most much my no not of on only or other our over s",
    "she should so some such t than that the their them then there these they this those through to under until us",
    "very was we were what when where which who whom whose why will with would you your",
)
"""English words that say nothing of what a text is about."""
_NOT_ENGLISH_ALONE = _words("a all also an as at be do had has he her i in is it me no on or s so t us was")
_ENGLISH = FUNCTION_WORDS - _NOT_ENGLISH_ALONE
# Without accents. German, Spanish, French, Italian, Portuguese, Dutch, Romanian, Turkish.
_FOREIGN = (
    _words(
        "der die das und ist nicht ein eine einen einem einer von mit auf dem den des zu wer wie welche welcher",
        "welches wo wann warum wurde sich im fur",
        "el la los las una unos que de del en es por con para como cual cuales quien donde cuando",
        "le les du un une est et dans qui quel quelle quels pour sur",
        "il lo gli di che della nel sono quale chi dove",
        "o os um uma da qual quem onde na em",
        "het een van op voor niet welk wat wie",
        "si din ce cu pe care unde",
        "ve bir ne icin hangi kim nerede",
    )
    - FUNCTION_WORDS
)


def is_english(text: str, words: Iterable[str]) -> bool:
    """`words` are those of the text in Latin letters, small and without accents."""
    against = sum("\u00c0" <= letter <= "\u024f" or "\u1e00" <= letter <= "\u1eff" for letter in text)
    for word in words:
        against += (word in _FOREIGN) - (word in _ENGLISH)
    return against <= 0
