"""The record of a turn: its question is saved when it opens, its answer when it closes, each exactly once.

Both calls may be repeated, and may come twice at the same time: the store saves one copy and returns what is saved;
here it is decided whether the repeat asked the same question. Of two ends the first counts. The history of a question
is the turns before it in its branch that had ended when it was asked: a turn that still runs beside it gets its own
answer, and half a turn would only confuse the model.
"""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.session.conversation import Owner, title_from
from services.session.message import Citation, Message, State, Usage
from services.shared.errors import AlreadyExists, Reason


@dataclass(frozen=True)
class Question:
    """What a turn begins with. It stands after one turn or beside another; with neither, after the one asked last."""

    turn_id: UUID
    conversation_id: UUID
    text: str
    follows_turn_id: UUID | None = None
    replaces_turn_id: UUID | None = None

    def is_saved_as(self, saved: Message) -> bool:
        """Whether `saved` is this question. Without a place of its own it may stand anywhere."""
        return (
            (saved.conversation_id, saved.text) == (self.conversation_id, self.text)
            and self.follows_turn_id in (None, saved.parent_turn_id)
            and self.replaces_turn_id in (None, *saved.sibling_turn_ids)
        )


@dataclass(frozen=True)
class Answer:
    """What a turn ends with; without text only the end itself is saved."""

    turn_id: UUID
    text: str
    state: State
    citations: tuple[Citation, ...] = ()
    usage: Usage | None = None


@dataclass(frozen=True)
class OpenedTurn:
    """The question as saved, and what was said before it: each answer after its question, oldest first."""

    question: Message
    history: tuple[Message, ...]


@dataclass(frozen=True)
class ClosedTurn:
    """How the turn ended, and the answer as saved; None when no word had come."""

    state: State
    answer: Message | None


class Turns(Protocol):
    """The stored turns."""

    async def open(self, owner: Owner, question: Question, title: str, history_limit: int) -> OpenedTurn:
        """Save the question unless the turn exists, and `title` if there is none; return what the turn holds.

        The history is the last messages of the turns before it that had ended, `history_limit` and MAX_TOGETHER_BYTES
        at most, and the same for every repeat. Raises conversation_not_found(), and turn_not_found() if the
        conversation has no turn to follow or replace.
        """

    async def close(self, owner: Owner, answer: Answer) -> ClosedTurn:
        """Save the answer unless the turn has ended; return how it ended. Raises turn_not_found()."""


async def open_turn(turns: Turns, owner: Owner, question: Question, history_limit: int) -> OpenedTurn:
    """Save the question; raise AlreadyExists if the turn was opened with another one."""
    opened = await turns.open(owner, question, title_from(question.text), history_limit)
    if not question.is_saved_as(opened.question):
        raise AlreadyExists(Reason.REQUEST_ID_REUSED, "This turn_id was opened with another question.")
    return opened
