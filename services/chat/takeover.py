"""What the log of a turn tells a replica that goes on with it.

The words since the last `rewound` are what the readers have; the model continues them. `sources` fix the numbers and
titles of the passages, `usage` how the turn was about to end. A log that may have lost its end, or still holds a try
that failed, is not believed: the turn is rewound, and the whole answer is made again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.chat import notes
from services.chat.live import TurnLog
from services.chat.turn import (
    Cancelled,
    Completed,
    End,
    Entry,
    Failed,
    Rewound,
    Sources,
    Started,
    TextDelta,
    Turn,
    Usage,
)
from services.shared.errors import Unavailable


@dataclass(frozen=True)
class Recovered:
    """How far a turn had come."""

    started: bool = False
    sources: Sources | None = None
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    first_text_time: datetime | None = None
    ending: End | None = None  # how it was about to end
    end: End | None = None
    rewind: bool = False  # readers may have seen more than this, or an earlier try: it is void


def recovered(entries: Iterable[Entry]) -> Recovered:
    """From all entries of a log, in order."""
    found, words = Recovered(), list[str]()
    for entry in entries:
        match entry.event:
            case Started():
                found = replace(found, started=True)
            case Rewound():
                found, words = Recovered(started=True), []
            case Sources():
                found = replace(found, sources=entry.event)
            case TextDelta(text):
                words.append(text)
                usage, time = notes.in_words(entry.note)
                found = replace(found, usage=usage, first_text_time=found.first_text_time or time)
            case Usage():
                found = replace(found, usage=entry.event, ending=notes.end_in(entry.note))
            case Completed() | Failed() | Cancelled() as end:
                found = replace(found, end=end)
    return replace(found, text="".join(words))


async def all_entries(log: TurnLog, turn: Turn) -> list[Entry]:
    """The whole log of a turn. Raises Unavailable."""
    entries: list[Entry] = []
    while page := await log.read(turn.id, entries[-1].sequence if entries else 0):
        entries += page
    return entries


async def recover(turn: Turn, log: TurnLog) -> tuple[Recovered, list[Entry]]:
    """How far the turn had come, with its entries that are not void."""
    try:
        entries = await all_entries(log, turn)
        await log.last(turn.id)  # tells, if the store was lost while nobody asked, its present incarnation
    except Unavailable:
        return Recovered(started=True, rewind=True), []
    if turn.log_incarnation is None or turn.log_incarnation != log.incarnation:
        return Recovered(started=True, rewind=True), entries[:1]
    return recovered(entries), entries
