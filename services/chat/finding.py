"""Finding the passages of one turn, with what the asker said before.

Only session knows whether something was said before, and a first question does not wait for session: it is searched
for while session opens the turn. Where there turns out to be a history, that search is given up for one with it. A
question that names the turn it follows waits, because it has a history for certain.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from services.chat.turn import Asker, Follows, Message, Passage, Role, Sources, Turn
from services.shared.errors import Refusal

EARLIER_QUESTIONS = 3
"""What was said longer ago adds next to nothing, and each costs the embedding model time (docs/retrieval.md)."""


class Documents(Protocol):
    """The passages of the organisation's documents, kept by knowledge."""

    async def search(self, asker: Asker, text: str, history: Sequence[str]) -> Sequence[Passage]:
        """Passages that fit, best first; `history` is what the asker said before, newest last.

        Raises Refusal, in time for a person who waits.
        """


class Finding:
    """The search of one turn, in the tasks of its opening."""

    def __init__(self, documents: Documents, turn: Turn, shown: Sources | None, tasks: asyncio.TaskGroup) -> None:
        """`shown`: the sources that readers have seen already."""
        self._documents = documents
        self._turn = turn
        self._shown = shown
        self._tasks = tasks
        waits = isinstance(turn.question.place, Follows)
        self._task = None if waits else tasks.create_task(self._find_again(()))

    def follow(self, history: Sequence[Message]) -> None:
        """Go on, now that it is known what was said before, oldest first."""
        asked = [message.text for message in history if message.role is Role.USER][-EARLIER_QUESTIONS:]
        if self._task is None or asked:
            if self._task:
                self._task.cancel()
            self._task = self._tasks.create_task(self._find_again(asked))

    @property
    def sources(self) -> Sources:
        """Once the tasks are done."""
        assert self._task
        return self._task.result()

    async def _find_again(self, history: Sequence[str]) -> Sources:
        """The passages that were shown, whole where they can be found again, else as much as was shown of them."""
        if self._shown is None:
            return await self._find(history)
        if not self._shown.passages:
            return self._shown
        whole = {passage.id: passage for passage in (await self._find(history)).passages}
        return replace(self._shown, passages=tuple(whole.get(passage.id, passage) for passage in self._shown.passages))

    async def _find(self, history: Sequence[str]) -> Sources:
        question = self._turn.question
        if not question.search:
            return Sources((), degraded=False)
        try:
            found = await self._documents.search(self._turn.asker, question.text, history)
        except Refusal:
            return Sources((), degraded=True)
        return Sources(tuple(found), degraded=False)
