"""Answering one turn: open it, find passages, let the model speak, close it.

The run is a task of its own that no client can interrupt, so that every turn that was opened is also closed. Only the
part in which the model speaks can be stopped. A run that takes a turn over begins where the log ends.

The order of the last steps is what two replicas, or a crash, can't disturb: `usage` with its note fixes text and end
in the log, then the answer is saved, then the turn ends in the record, then its last event is shown. Each step may be
done again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

from services.chat import notes
from services.chat.finding import Documents, Finding
from services.chat.journal import REWOUND_STEP, Journal
from services.chat.live import LiveTurn, TurnTaken, Wish
from services.chat.pace import Pace
from services.chat.prompt import Prompts
from services.chat.speech import FIRST_PAUSE_S, LONGEST_PAUSE_S, HandedOver, Model, Speech
from services.chat.takeover import Recovered
from services.chat.turn import (
    CancellationCause,
    Cancelled,
    Completed,
    End,
    Failed,
    FinishReason,
    Message,
    Passage,
    Rewound,
    SavedAnswer,
    Sources,
    Started,
    TextDelta,
    Turn,
    Usage,
    failure,
)
from services.chat.words import Words, in_deltas
from services.shared.errors import Reason, Refusal, Unavailable

_log = logging.getLogger("parley.chat")
T = TypeVar("T")


class Conversations(Protocol):
    """The record of what was said, kept by session."""

    async def open_turn(self, turn: Turn) -> Sequence[Message]:
        """Save the question, return what was said before it, oldest first. Raises session's refusals, as they are."""

    async def close_turn(
        self, turn: Turn, text: str, *, whole: bool, passages: Sequence[Passage], usage: Usage
    ) -> SavedAnswer:
        """Save the answer unless the turn has one; return what is saved. Raises NotFound or Unavailable."""


class TurnMeter(Protocol):
    """What operators count."""

    def first_words(self, model: str, seconds: float) -> None: ...
    def ended(self, model: str, end: End, usage: Usage) -> None: ...


class TurnEnds(Protocol):
    """Where the end of a turn is recorded, with its event for other services."""

    async def finish(
        self, turn: Turn, end: End, usage: Usage, message_id: UUID | None, first_text_time: datetime | None
    ) -> bool:
        """Record how the turn ended, once. False when it is not this run's any more. Raises Unavailable."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a turn is answered with."""

    conversations: Conversations
    documents: Documents
    model: Model
    ends: TurnEnds
    meter: TurnMeter
    prompts: Prompts
    pace: Pace
    patience_s: float  # how long the end of a turn waits for a peer or the record to come back
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class Answer:
    """One run of one turn."""

    def __init__(
        self,
        turn: Turn,
        live: LiveTurn,
        journal: Journal,
        means: Means,
        found: Recovered,
        interval_s: Callable[[], float],
        *,
        patient: bool,
    ) -> None:
        """`interval_s` says how long words are gathered just now.

        `patient`: readers may have seen words, so session and the model are waited for.
        """
        self._turn = turn
        self._live = live
        self._journal = journal
        self._means = means
        self._found = found
        self._interval_s = interval_s
        self._patient = patient
        self._words = Words(found.text, found.usage)
        self._passages = found.sources.passages if found.sources else ()
        self.opened = found.started  # there is something to end
        self._first_text_time = found.first_text_time
        self._until_s = asyncio.get_running_loop().time() + turn.time_left_s

    async def run(self) -> None:
        """Answer to the end. Raises the refusal of a turn that could not be opened; then nothing of it is stored.

        Raises TurnTaken and HandedOver when another replica has the turn, or may have it.
        """
        try:
            end = self._found.end or self._found.ending or await self._answer()
        except Refusal as refusal:
            if not self.opened:
                raise
            end = self._stopped() or failure(refusal)
        except (TurnTaken, HandedOver):
            raise
        except Exception:  # whatever broke: the turn must end, and say so
            _log.exception("a turn broke", extra={"facts": {"turn_id": self._turn.id}})
            end = Failed(Reason.INTERNAL, "Something broke on our side.")
        await self._close(end)

    async def _answer(self) -> End:
        if self._found.rewind:
            await self._rewind()
        try:
            async with asyncio.timeout_at(self._until_s), asyncio.TaskGroup() as tasks:
                finding = Finding(self._means.documents, self._turn, self._found.sources, tasks)
                history = await self._open(finding)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        except TimeoutError:
            if not self.opened:
                raise Unavailable(Reason.CONVERSATION_UNAVAILABLE, "The turn's time ran out before it began.") from None
            return Wish(CancellationCause.DEADLINE, self._until_s).cancelled(CancellationCause.DEADLINE)
        return self._stopped() or await self._speak(history, finding.sources)

    async def _open(self, finding: Finding) -> Sequence[Message]:
        """What was said before; from here on, the question is saved."""
        opening = partial(self._means.conversations.open_turn, self._turn)
        history = await (self._patiently(opening, self._until_s) if self._patient else opening())
        finding.follow(history)
        if not self.opened:
            self.opened = True
            await self._journal.write(self._started())
        return history

    def _stopped(self) -> Cancelled | None:
        """How the turn ends when it was stopped before the model spoke. Raises HandedOver."""
        if (wish := self._live.wish) is None:
            return None
        if wish.cause is None:
            raise HandedOver
        return wish.cancelled(wish.cause)

    async def _rewind(self) -> None:
        if not self._live.entries:
            await self._journal.write(self._started())
        await self._journal.write(Rewound(), sequence=self._turn.runs * REWOUND_STEP)

    def _started(self) -> Started:
        turn = self._turn
        return Started(turn.question.conversation_id, turn.model, turn.create_time, not self._journal.behind)

    async def _speak(self, history: Sequence[Message], sources: Sources) -> End:
        """The model's words into the log, until it has finished or is stopped."""
        prompt = self._means.prompts.assemble(self._turn.question, history, sources.passages)
        self._passages = prompt.passages
        speech = Speech(
            self._means.model,
            self._turn,
            prompt,
            self._words,
            self._live,
            self._interval_s,
            until_s=self._until_s,
            patient=self._patient,
        )
        speaking = asyncio.create_task(speech.run())
        try:
            if self._found.sources is None and self._turn.question.search:
                await self._journal.write(Sources(prompt.passages, degraded=sources.degraded))
            await self._write_words()
        finally:
            speaking.cancel()
            await asyncio.wait((speaking,))
        return speech.cancelled or Completed(self._words.finish_reason)

    async def _write_words(self) -> None:
        words, journal = self._words, self._journal
        if not self._found.text and (text := await words.take()):
            self._first_text_time = self._means.clock()
            await journal.write(TextDelta(text), note=notes.of_words(words.usage, self._first_text_time))
            self._means.meter.first_words(self._turn.model, self._live.age_s)
        while text := await words.take(self._interval_s()):
            await journal.write(TextDelta(text), note=notes.of_words(words.usage))

    async def _close(self, end: End) -> None:
        text, usage, message_id = self._words.text, self._words.usage, None
        if not self._found.ending:  # else the log has it
            await self._journal.write(usage, note=notes.of_end(end))
        try:
            # A turn that failed without a word stays open at session, so that the same request may try again.
            if text or not isinstance(end, Failed):
                whole = isinstance(end, Completed)
                saved = await self._at_the_end(
                    lambda: self._means.conversations.close_turn(
                        self._turn, text, whole=whole, passages=self._passages, usage=self._words.usage
                    )
                )
                message_id = saved.message_id
                if (saved.text, saved.whole) != (text, whole):
                    end, usage = await self._end_as(saved), saved.usage
            if not isinstance(end, Failed):
                end = replace(end, message_id=message_id)
        except Refusal as refusal:
            end = failure(refusal)
        if not await self._at_the_end(
            lambda: self._means.ends.finish(self._turn, end, usage, message_id, self._first_text_time)
        ):
            raise TurnTaken(str(self._turn.id))
        self._means.meter.ended(self._turn.model, end, usage)
        if not self._found.end:
            await self._journal.end(end)

    async def _end_as(self, saved: SavedAnswer) -> End:
        """Tell the readers what the conversation has: another run, which lost the turn, had closed it first."""
        wish = self._live.wish
        stopped = wish.cancelled(wish.cause) if wish and wish.cause else Cancelled(cause=CancellationCause.STOPPED)
        end = Completed(FinishReason.STOP) if saved.whole else stopped
        deltas = map(TextDelta, in_deltas(saved.text))
        note = notes.of_words(saved.usage)
        await self._journal.write(Rewound(), Sources(saved.passages, degraded=False), *deltas, note=note)
        await self._journal.write(saved.usage, note=notes.of_end(end))
        return end

    async def _at_the_end(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await self._patiently(ask, asyncio.get_running_loop().time() + self._means.patience_s, heed=False)

    async def _patiently(self, ask: Callable[[], Awaitable[T]], until_s: float, *, heed: bool = True) -> T:
        """What a peer answers; one that is away is asked again, unless (`heed`) the turn is to stop."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except Unavailable:
                if asyncio.get_running_loop().time() + pause_s > until_s or (heed and self._live.wish):
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
