"""The record of conversations in memory, held to the same suite as the real one (test_store.py).

It runs without waiting anywhere, so each method is as indivisible as a statement.
"""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from services.session.conversation import Conversation, ConversationKey, Owner, conversation_not_found
from services.session.message import MAX_TOGETHER_BYTES, Message, Page, Role, State, turn_not_found
from services.session.store import kept
from services.session.turn import Answer, ClosedTurn, OpenedTurn, Question


@dataclass
class Clock:
    """Goes on by a microsecond whenever it is read."""

    now: datetime = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now


@dataclass
class FakeTurn:
    """A row of turns."""

    owner: Owner
    conversation_id: UUID
    id: UUID
    parent_turn_id: UUID | None
    position: int
    state: State | None = None
    close_position: int | None = None


@dataclass
class FakeRecord:
    """The tables; the three ports below share one record."""

    clock: Clock = field(default_factory=Clock)
    conversations: dict[tuple[Owner, UUID], Conversation] = field(default_factory=dict)
    requests: dict[tuple[Owner, UUID], tuple[UUID, bytes]] = field(default_factory=dict)
    positions: dict[UUID, int] = field(default_factory=dict)
    turns: dict[tuple[UUID, UUID], FakeTurn] = field(default_factory=dict)
    messages: dict[tuple[UUID, UUID, Role], Message] = field(default_factory=dict)
    # Type and ids of the facts told, in order.
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def held(self, owner: Owner, conversation_id: UUID) -> Conversation:
        if (found := self.conversations.get((owner, conversation_id))) is None:
            raise conversation_not_found()
        return found

    def touch(self, owner: Owner, conversation_id: UUID, title: str = "") -> datetime:
        found, now = self.held(owner, conversation_id), self.clock()
        self.conversations[owner, conversation_id] = replace(found, title=found.title or title, update_time=now)
        return now

    def turns_of(self, conversation_id: UUID) -> dict[UUID, FakeTurn]:
        """By id, in the order in which they were asked."""
        return {turn.id: turn for turn in self.turns.values() if turn.conversation_id == conversation_id}

    def path_to(self, turn: FakeTurn) -> list[FakeTurn]:
        """From the branch's first turn to this one."""
        if turn.parent_turn_id is None:
            return [turn]
        return [*self.path_to(self.turns[turn.owner.tenant_id, turn.parent_turn_id]), turn]

    def said_in(self, turn: FakeTurn) -> list[Message]:
        said = (self.messages.get((turn.owner.tenant_id, turn.id, role)) for role in Role)
        return [self.placed(message) for message in said if message]

    def placed(self, message: Message) -> Message:
        """With the siblings that the message's turn has by now."""
        turns = self.turns_of(message.conversation_id)
        beside = [turn.id for turn in turns.values() if turn.parent_turn_id == message.parent_turn_id]
        return replace(message, sibling_turn_ids=tuple(beside))

    def tell(self, event_type: str, owner: Owner, **ids: UUID) -> None:
        names = {"tenant_id": owner.tenant_id, "user_id": owner.user_id, **ids}
        self.events.append((f"parley.session.v1.{event_type}", {name: str(value) for name, value in names.items()}))

    def append(self, owner: Owner, message: Message) -> Message:
        self.messages[owner.tenant_id, message.turn_id, message.role] = message
        ids = {"message_id": message.id, "turn_id": message.turn_id}
        self.tell("MessageAppended", owner, conversation_id=message.conversation_id, **ids)
        return message


class FakeConversations:
    """Implements conversation.Conversations."""

    def __init__(self, record: FakeRecord) -> None:
        self._record = record

    async def create(self, owner: Owner, request_id: UUID, title: str, digest: bytes) -> tuple[Conversation, bytes]:
        if made := self._record.requests.get((owner, request_id)):
            return self._record.held(owner, made[0]), made[1]
        now = self._record.clock()
        made = Conversation(uuid4(), title, now, now)
        self._record.conversations[owner, made.id] = made
        self._record.positions[made.id] = 0
        self._record.requests[owner, request_id] = made.id, digest
        self._record.tell("ConversationCreated", owner, conversation_id=made.id)
        return made, digest

    async def get(self, owner: Owner, conversation_id: UUID) -> Conversation:
        return self._record.held(owner, conversation_id)

    async def page(self, owner: Owner, after: ConversationKey | None, limit: int) -> list[Conversation]:
        mine = [found for (whose, _), found in self._record.conversations.items() if whose == owner]
        mine.sort(key=lambda found: (found.update_time, found.id), reverse=True)
        return [found for found in mine if after is None or (found.update_time, found.id) < after][:limit]

    async def rename(self, owner: Owner, conversation_id: UUID, title: str) -> Conversation:
        found = self._record.held(owner, conversation_id)
        renamed = replace(found, title=title, update_time=self._record.clock())
        self._record.conversations[owner, conversation_id] = renamed
        return renamed

    async def delete(self, owner: Owner, conversation_id: UUID) -> None:
        record = self._record
        record.held(owner, conversation_id)
        del record.conversations[owner, conversation_id]
        record.requests = {key: made for key, made in record.requests.items() if made[0] != conversation_id}
        record.turns = {key: turn for key, turn in record.turns.items() if turn.conversation_id != conversation_id}
        record.messages = {
            key: message for key, message in record.messages.items() if message.conversation_id != conversation_id
        }
        record.tell("ConversationDeleted", owner, conversation_id=conversation_id)


class FakeMessages:
    """Implements message.Messages."""

    def __init__(self, record: FakeRecord) -> None:
        self._record = record

    async def page(
        self, owner: Owner, conversation_id: UUID, after_position: int, limit: int, branch_turn_id: UUID | None = None
    ) -> Page:
        record = self._record
        record.held(owner, conversation_id)
        turns = record.turns_of(conversation_id)
        if branch_turn_id and branch_turn_id not in turns:
            raise turn_not_found()
        paths = [record.path_to(turn) for turn in turns.values()]
        branch = next((path for path in reversed(paths) if branch_turn_id in (None, *(turn.id for turn in path))), [])
        said = [message for turn in branch for message in record.said_in(turn) if message.position > after_position]
        left = sorted(said, key=lambda message: message.position)
        page: list[Message] = []
        for message in left[:limit]:
            if sum(map(_size_bytes, page)) >= MAX_TOGETHER_BYTES:
                break
            page.append(message)
        return Page(tuple(page), len(left) > len(page), branch[-1].id if branch else None)


class FakeTurns:
    """Implements turn.Turns."""

    def __init__(self, record: FakeRecord) -> None:
        self._record = record

    async def open(self, owner: Owner, question: Question, title: str, history_limit: int) -> OpenedTurn:
        record, key, conversation_id = self._record, (owner.tenant_id, question.turn_id), question.conversation_id
        record.held(owner, conversation_id)
        if key not in record.turns:
            parent_turn_id = self._parent_of(question)
            record.positions[conversation_id] += 1
            position = record.positions[conversation_id]
            record.turns[key] = FakeTurn(owner, conversation_id, question.turn_id, parent_turn_id, position)
            now = record.touch(owner, conversation_id, title)
            ids = (uuid4(), conversation_id, question.turn_id)
            facts = (position, Role.USER, question.text, State.COMPLETE, now, parent_turn_id, ())
            record.append(owner, Message(*ids, *facts))
        history = self._history(record.turns[key], history_limit)
        return OpenedTurn(record.placed(record.messages[*key, Role.USER]), tuple(history))

    def _parent_of(self, question: Question) -> UUID | None:
        turns = self._record.turns_of(question.conversation_id)
        named = question.follows_turn_id or question.replaces_turn_id
        if named and named not in turns:
            raise turn_not_found()
        if question.replaces_turn_id:
            return turns[question.replaces_turn_id].parent_turn_id
        return question.follows_turn_id or next(reversed(turns), None)

    async def close(self, owner: Owner, answer: Answer) -> ClosedTurn:
        record, key = self._record, (owner.tenant_id, answer.turn_id)
        turn = record.turns.get(key)
        if turn is None or turn.owner != owner:
            raise turn_not_found()
        if turn.state is None:
            record.positions[turn.conversation_id] += 1
            turn.state, turn.close_position = answer.state, record.positions[turn.conversation_id]
            if answer.text:
                now = record.touch(owner, turn.conversation_id)
                ids = (uuid4(), turn.conversation_id, answer.turn_id)
                facts = (
                    turn.close_position,
                    Role.ASSISTANT,
                    answer.text,
                    answer.state,
                    now,
                    turn.parent_turn_id,
                    (),
                    answer.citations,
                    answer.usage,
                )
                record.append(owner, Message(*ids, *facts))
        saved = record.messages.get((*key, Role.ASSISTANT))
        return ClosedTurn(turn.state, record.placed(saved) if saved else None)

    def _history(self, asked: FakeTurn, limit: int) -> list[Message]:
        before = self._record.path_to(asked)[:-1]
        ended = [turn for turn in before if turn.close_position and turn.close_position < asked.position]
        earlier = [message for turn in ended for message in self._record.said_in(turn)]
        history: list[Message] = []
        for message in reversed(earlier[len(earlier) - min(limit, len(earlier)) :]):
            history.insert(0, message)
            if sum(map(_size_bytes, history)) > MAX_TOGETHER_BYTES:
                return history[1:]
        return history


def _size_bytes(message: Message) -> int:
    citations = json.dumps([kept(citation) for citation in message.citations], ensure_ascii=False)
    return len(message.text.encode()) + len(citations.encode())
