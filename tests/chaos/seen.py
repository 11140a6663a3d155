"""What clients saw, kept as it was: the only testimony, beside the record's, that the verdict hears."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parley.chat.v1.turn_pb2 import Turn, TurnEvent
from parley.session.v1.session_pb2 import Message

LAST_KINDS = ("completed", "failed", "cancelled")


class Step(NamedTuple):
    """One event as a reader got it."""

    sequence: int
    kind: str
    text: str  # of a text_delta
    mark: int  # equal for equal events
    at_s: float


@dataclass
class Break:
    """An interruption: from the last event before it to the first one after it."""

    since_s: float
    why: str
    over_s: float | None = None
    noticed_s: float = 0.0
    asked: int = 0
    """How often the client asked again."""
    tries: list[tuple[float, str]] = field(default_factory=list)
    """What the client heard meanwhile, and how long after the last event."""

    @property
    def told(self) -> str:
        """What the client heard, each repeated refusal once: `silence 1.00, UNAVAILABLE 1.05-1.42`."""
        spans: list[list[Any]] = []
        for at_s, why in self.tries:
            if spans and spans[-1][0] == why:
                spans[-1][2] = at_s
            else:
                spans.append([why, at_s, at_s])
        return ", ".join(
            f"{why[:40]} {first_s:.2f}{f'-{last_s:.2f}' * (last_s > first_s)}" for why, first_s, last_s in spans
        )

    @property
    def lasted_s(self) -> float:
        return (self.over_s or self.since_s) - self.since_s


@dataclass
class Stream:
    """One reader of one turn, over as many calls as it took."""

    began_s: float
    joined: bool = False
    """Came by ResumeTurn alone, without the request."""
    steps: list[Step] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    turn_ids: set[str] = field(default_factory=set)
    end: TurnEvent | None = None
    settled: Turn | None = None
    """The record's word, where the log could not tell the end (TURN_NOT_RESUMABLE)."""
    refusal: str = ""
    """The reason that ended the stream for good."""
    given_up: str = ""
    """What was last heard when patience was over."""
    void: list[Step] = field(default_factory=list)
    """Of tries at the turn that failed before the first word."""
    restarts: int = 0
    """How often the turn had failed before its first word and was asked for again."""
    waits: list[Break] = field(default_factory=list)
    """Each from such a failure, which ends an interruption by the contract, to the next words or end."""
    undefined: list[str] = field(default_factory=list)
    """Refusals that the contract does not know."""

    @property
    def last(self) -> int:
        return self.steps[-1].sequence if self.steps else 0

    @property
    def text(self) -> str:
        """The answer as a person would see it: whatever came since the last rewind."""
        words: list[str] = []
        for step in self.steps:
            if step.kind == "rewound":
                words.clear()
            words.append(step.text)
        return "".join(words)

    @property
    def trail(self) -> str:
        """What came, in short: `1 started, 2 sources, 3-40 text_delta, ...`."""
        runs: list[list[Step]] = []
        for step in self.steps:
            follows = runs and runs[-1][-1].kind == step.kind and runs[-1][-1].sequence + 1 == step.sequence
            runs[-1].append(step) if follows else runs.append([step])
        spans = [f"{run[0].sequence}{f'-{run[-1].sequence}' if len(run) > 1 else ''} {run[0].kind}" for run in runs]
        return ", ".join(spans) or "nothing"


@dataclass
class Story:
    """One question, all who read its turn, and what was done to it."""

    user: str
    conversation_id: str
    request_id: str
    question: str
    answer: str
    """What an undisturbed turn says, byte for byte."""
    tokens: int
    manner: str
    replaces: str = ""
    """The turn beside which it is to stand."""
    follows: str = ""
    """The turn after which it is to stand."""
    streams: list[Stream] = field(default_factory=list)
    cancel_wish_s: float | None = None
    cancel_answered: Turn | None = None
    cancel_problem: str = ""

    @property
    def turn_ids(self) -> set[str]:
        return set().union(*(stream.turn_ids for stream in self.streams))


@dataclass
class Record:
    """What the mesh itself says at the end, asked through the edge."""

    messages: dict[str, Sequence[Message]] = field(default_factory=dict)
    """By conversation, those of all its branches; a conversation that was made and is not there has no entry."""
    turns: dict[str, Turn] = field(default_factory=dict)
    """By id; a turn that was shown and is not there has no entry."""
