"""The record of a turn: its question is saved when it opens, its answer when it closes, each exactly once.

Both calls may be repeated, and may come twice at the same time: the store saves one copy and returns what is saved;
here it is decided whether the repeat asked for the same. The history of a question is the turns that had ended when
it was asked: a turn that still runs beside it gets its own answer, and half a turn would only confuse the model.
"""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.session.conversation import Owner, title_from
from services.session.message import Citation, Message, State, Usage
from services.shared.errors import AlreadyExists, NotFound, Reason, WrongState


@dataclass(frozen=True)
class Question:
    """What a turn begins with."""

    turn_id: UUID
    conversation_id: UUID
    text: str


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
    """The question as saved, and what was said before it, oldest first."""

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

        The history is the last messages of turns that had ended, `history_limit` and MAX_TOGETHER_BYTES at most.
        Raises conversation_not_found().
        """

    async def close(self, owner: Owner, answer: Answer) -> ClosedTurn:
        """Save the answer unless the turn has ended; return how it ended. Raises turn_not_found()."""


async def open_turn(turns: Turns, owner: Owner, question: Question, history_limit: int) -> OpenedTurn:
    """Save the question; raise AlreadyExists if the turn was opened with another one."""
    opened = await turns.open(owner, question, title_from(question.text), history_limit)
    saved = opened.question
    if (saved.conversation_id, saved.text) != (question.conversation_id, question.text):
        raise AlreadyExists(Reason.REQUEST_ID_REUSED, "This turn_id was opened with another question.")
    return opened


async def close_turn(turns: Turns, owner: Owner, answer: Answer) -> Message | None:
    """Save the answer and return it; raise WrongState if the turn has ended with other words or in another state."""
    closed = await turns.close(owner, answer)
    saved_text = closed.answer.text if closed.answer else ""
    if (closed.state, saved_text) != (answer.state, answer.text):
        raise WrongState(Reason.TURN_ALREADY_CLOSED, "The turn has ended with another answer.", state=closed.state)
    return closed.answer


def turn_not_found() -> NotFound:
    """The refusal for a turn that was never opened by this user, or whose conversation was deleted."""
    return NotFound(Reason.TURN_NOT_FOUND, "There is no such turn; its conversation may have been deleted.")
