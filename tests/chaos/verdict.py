"""Judges a run by what clients saw and what the record holds, and by nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parley.chat.v1.turn_pb2 import CancellationCause, TurnState
from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.session.v1.session_pb2 import Message, MessageRole, MessageState
from tests.chaos.seen import Record, Story, Stream

LOST = "acknowledged messages lost"
DOUBLED = "doubled turns"
SEQUENCE = "gaps or repeats in sequence"
AGREE = "readers that disagree"
TEXT = "answers that differ from the undisturbed one"
OVERWRITTEN = "replaced questions and answers that are not kept"
PLACE = "turns in a wrong place of their conversation"
UNRESUMED = "interrupted streams without a defined end"
UNASKED = "turns stopped that nobody stopped"
RUNNING = "turns left running"
CHARGED = "usage that does not add up"
UNDEFINED = "refusals outside the contract"
CHECKS = (LOST, DOUBLED, OVERWRITTEN, PLACE, SEQUENCE, AGREE, TEXT, UNRESUMED, UNASKED, RUNNING, CHARGED, UNDEFINED)
_ENDED = {
    TurnState.TURN_STATE_COMPLETED: "completed",
    TurnState.TURN_STATE_FAILED: "failed",
    TurnState.TURN_STATE_CANCELLED: "cancelled",
}


@dataclass(frozen=True)
class Violation:
    check: str
    story: Story
    words: str

    def __str__(self) -> str:
        turns = ", ".join(sorted(self.story.turn_ids)) or "no turn"
        trails = "".join(
            f"\n      {stream.trail}; {len(stream.breaks)} breaks, {stream.restarts} restarts"
            for stream in self.story.streams
        )
        return f"{self.check}: {self.words} ({self.story.user}, {self.story.manner}, turn {turns}){trails}"


def judge(stories: Sequence[Story], record: Record) -> list[Violation]:
    """Every violation, by story."""
    found: list[Violation] = []
    by_turn: dict[str, list[Message]] = defaultdict(list)
    for messages in record.messages.values():
        for message in messages:
            by_turn[message.turn_id].append(message)
    questions = _questions(stories, record)
    places = Places(stories, questions, record)
    for story in stories:
        for check, words in _faults_of(story, record, by_turn, questions[story.request_id], places):
            found.append(Violation(check, story, words))
    return found


def _questions(stories: Iterable[Story], record: Record) -> dict[str, list[Message]]:
    """The saved copies of each story's question, by request: known by the turn, or, where no client learned it, or it
    was made twice, by the words. The words alone do not tell it from an earlier turn that it answers again.
    """
    known = {turn_id: story.request_id for story in stories for turn_id in story.turn_ids}
    found: dict[str, list[Message]] = {}
    for story in stories:
        found[story.request_id] = [
            message
            for message in record.messages.get(story.conversation_id, ())
            if message.role == MessageRole.MESSAGE_ROLE_USER
            and known.get(message.turn_id, story.request_id) == story.request_id
            and (message.text == story.question or message.turn_id in story.turn_ids)
        ]
    return found


class Places:
    """Where each turn has to stand: who told to replace or follow another one beside or after it, everybody else after
    the one asked last."""

    def __init__(self, stories: Iterable[Story], questions: dict[str, list[Message]], record: Record) -> None:
        self._record = record
        self._replaced = {turn_id: story for story in stories for turn_id in story.turn_ids}
        self._parents: dict[str, str] = {}
        self._siblings: dict[tuple[str, str], set[str]] = defaultdict(set)
        last: dict[str, str] = {}
        for story in stories:
            for question in questions[story.request_id][:1]:
                parent = story.follows or last.get(story.conversation_id, "")
                if story.replaces:
                    parent = self._parents.get(story.replaces, "")
                self._parents[question.turn_id] = parent
                self._siblings[story.conversation_id, parent].add(question.turn_id)
                last[story.conversation_id] = question.turn_id

    def faults_of(self, story: Story, question: Message) -> Iterable[tuple[str, str]]:
        parent = self._parents[question.turn_id]
        if question.parent_turn_id != parent:
            yield PLACE, f"it stands after {question.parent_turn_id or 'nothing'}, not after {parent or 'nothing'}"
        siblings = self._siblings[story.conversation_id, parent]
        if sorted(question.sibling_turn_ids) != sorted(siblings):
            yield PLACE, f"{len(question.sibling_turn_ids)} turns stand in its place, {len(siblings)} were asked there"
        if story.replaces:
            yield from self._kept(self._replaced[story.replaces], story.replaces)

    def _kept(self, replaced: Story, turn_id: str) -> Iterable[tuple[str, str]]:
        messages = self._record.messages.get(replaced.conversation_id, ())
        of_turn = [message for message in messages if message.turn_id == turn_id]
        if replaced.question not in [message.text for message in of_turn]:
            yield OVERWRITTEN, f"the question of the replaced turn {turn_id} does not stand as it was"
        turn = self._record.turns.get(turn_id)
        if turn and turn.message_id and turn.message_id not in [message.id for message in of_turn]:
            yield OVERWRITTEN, f"the answer of the replaced turn {turn_id} is gone"


def _faults_of(
    story: Story, record: Record, by_turn: dict[str, list[Message]], asked: Sequence[Message], places: Places
) -> Iterable[tuple[str, str]]:
    for stream in story.streams:
        yield from _sequence(stream)
        yield from _ending(story, stream)
    yield from _agreement(story)
    if story.cancel_problem:
        yield UNRESUMED, f"CancelTurn was not answered: {story.cancel_problem}"
    if len(story.turn_ids) > 1:
        yield DOUBLED, f"one request became {len(story.turn_ids)} turns"
    yield from _conversation(story, record, asked)
    if asked:
        yield from places.faults_of(story, asked[0])
    for turn_id in story.turn_ids:
        yield from _turn(story, turn_id, record, by_turn[turn_id])


def _sequence(stream: Stream) -> Iterable[tuple[str, str]]:
    before = 0
    for step in stream.steps:
        jumps = step.kind == "rewound" and step.sequence > before
        if step.sequence != before + 1 and not jumps:
            yield SEQUENCE, f"{step.kind} {step.sequence} came after {before}"
        before = step.sequence
    kinds = Counter(step.kind for step in stream.steps)
    for kind in ("started", "usage", "completed", "failed", "cancelled"):
        if kinds[kind] > 1 and not kinds["rewound"]:
            yield SEQUENCE, f"{kinds[kind]} times {kind}"


def _ending(story: Story, stream: Stream) -> Iterable[tuple[str, str]]:
    if stream.given_up:
        yield UNRESUMED, f"given up after {len(stream.breaks)} breaks, {stream.last} events seen: {stream.given_up}"
    if stream.refusal:
        yield UNRESUMED, f"refused for good: {stream.refusal}"
    for words in stream.undefined:
        yield UNDEFINED, words
    end = stream.end
    if end and end.HasField("completed") and stream.text != story.answer:
        yield TEXT, _difference(stream.text, story.answer)
    no_reason = (ErrorReason.ERROR_REASON_UNSPECIFIED, ErrorReason.ERROR_REASON_INTERNAL)
    if end and end.HasField("failed") and end.failed.reason in no_reason:
        yield UNDEFINED, f"failed without a reason: {end.failed.message}"
    if end and end.HasField("cancelled"):
        cause = CancellationCause.Name(end.cancelled.cause)
        if story.cancel_wish_s is None or cause != "CANCELLATION_CAUSE_REQUESTED":
            yield UNASKED, cause
    if not end and not story.answer.startswith(stream.text):
        yield TEXT, _difference(stream.text, story.answer)


def _agreement(story: Story) -> Iterable[tuple[str, str]]:
    """One number, one event: for all readers, also over tries that failed."""
    marks: dict[int, int] = {}
    for stream in story.streams:
        for step in (*stream.void, *stream.steps):
            if marks.setdefault(step.sequence, step.mark) != step.mark:
                yield AGREE, f"two different events have the number {step.sequence}"
                return


def _conversation(story: Story, record: Record, asked: Sequence[Message]) -> Iterable[tuple[str, str]]:
    if story.conversation_id not in record.messages:
        yield LOST, "the conversation is gone"
        return
    if not asked and any(stream.turn_ids for stream in story.streams):
        yield LOST, "the question is gone"
    if len(asked) > 1:
        yield DOUBLED, f"the question stands {len(asked)} times in the conversation"
    if asked and asked[0].text != story.question:
        yield TEXT, f"the question: {_difference(asked[0].text, story.question)}"


def _turn(story: Story, turn_id: str, record: Record, messages: Sequence[Message]) -> Iterable[tuple[str, str]]:
    turn = record.turns.get(turn_id)
    answers = [message for message in messages if message.role == MessageRole.MESSAGE_ROLE_ASSISTANT]
    if len(answers) > 1:
        yield DOUBLED, f"{len(answers)} answers"
    if turn is None:
        yield LOST, "the turn is gone"
        return
    if turn.state not in _ENDED:
        yield RUNNING, TurnState.Name(turn.state)
        return
    for stream in story.streams:
        seen = stream.end.WhichOneof("event") if stream.end else ""
        if seen and seen != _ENDED[turn.state]:
            yield LOST, f"a client saw {seen}, the record says {_ENDED[turn.state]}"
        acknowledged = getattr(stream.end, seen).message_id if seen in ("completed", "cancelled") else ""
        if acknowledged and acknowledged not in [answer.id for answer in answers]:
            yield LOST, f"the answer {acknowledged} was acknowledged and is gone"
        if seen == "cancelled" and acknowledged and answers and answers[0].text != stream.text:
            yield LOST, f"of the words before the stop: {_difference(answers[0].text, stream.text)}"
    if turn.state == TurnState.TURN_STATE_COMPLETED:
        if not answers:
            yield LOST, "completed, and no answer in the conversation"
        elif answers[0].state != MessageState.MESSAGE_STATE_COMPLETE or answers[0].text != story.answer:
            yield TEXT, f"saved: {_difference(answers[0].text, story.answer)}"
        elif answers[0].usage.completion_tokens != story.tokens or turn.usage != answers[0].usage:
            counts = (turn.usage.completion_tokens, answers[0].usage.completion_tokens)
            yield CHARGED, f"{story.tokens} words; the turn says {counts[0]} tokens, the answer {counts[1]}"
    elif answers and answers[0].state != MessageState.MESSAGE_STATE_INTERRUPTED:
        yield TEXT, "the answer of a turn that did not complete is not marked interrupted"


def _difference(found: str, expected: str) -> str:
    pairs = enumerate(zip(found, expected, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(len(found), len(expected)))
    here = slice(same, same + 20)
    return f"{len(found)} characters for {len(expected)}; from {same} on {found[here]!r}, not {expected[here]!r}"
