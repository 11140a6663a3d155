"""Subtitles (WebVTT, SRT): what is said, without times; a speaker is named where another one spoke before."""

import re
from collections.abc import Iterator

from services.knowledge.extract.sections import Read
from services.knowledge.passages import Block

_TIME = re.compile(r"^(?:\d+:)?\d\d:\d\d[.,]\d{3} +--> +(?:\d+:)?\d\d:\d\d[.,]\d{3}", re.MULTILINE)
_NOT_SPOKEN = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)\b")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)? ([^>]+)>")
_TAG = re.compile(r"</?[a-z0-9][^<>]*>")


def looks_like(text: str) -> bool:
    """Whether a text says when its words are spoken."""
    begin = text.lstrip()
    return (begin.startswith("WEBVTT") or begin[:1].isdigit()) and _TIME.search(begin[:2000]) is not None


def read(text: str) -> Read:
    """What is said, cue by cue."""
    return Read("text/vtt" if text.lstrip().startswith("WEBVTT") else "application/x-subrip", _blocks(text))


def _blocks(text: str) -> Iterator[Block]:
    speaker = ""
    for cue in re.split(r"\n[^\S\n]*\n", text.replace("\r\n", "\n")):
        time = _TIME.search(cue)
        if time is None or _NOT_SPOKEN.match(cue.lstrip()):
            continue
        said = cue[time.end() :].partition("\n")[2]
        voice = _VOICE.search(said)
        said = _TAG.sub("", said).strip()
        named = voice[1].strip() if voice else speaker
        yield Block(f"{named}: {said}" if named != speaker else said)
        speaker = named
