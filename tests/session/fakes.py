"""The record of conversations in memory, held to the same suite as the real one (test_store.py).

It runs without waiting anywhere, so each method is as indivisible as a statement.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from services.session.conversation import Conversation, ConversationKey, Owner, conversation_not_found
from services.session.message import MAX_TOGETHER_BYTES, Message, Role, State
from services.session.turn import Answer, ClosedTurn, OpenedTurn, Question, turn_not_found


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

    def said_in(self, conversation_id: UUID) -> list[Message]:
        said = [message for message in self.messages.values() if message.conversation_id == conversation_id]
        return sorted(said, key=lambda message: message.position)

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
        self, owner: Owner, conversation_id: UUID, after_position: int, limit: int
    ) -> tuple[list[Message], bool]:
        self._record.held(owner, conversation_id)
        left = [message for message in self._record.said_in(conversation_id) if message.position > after_position]
        page: list[Message] = []
        for message in left[:limit]:
            if sum(map(_size_bytes, page)) >= MAX_TOGETHER_BYTES:
                break
            page.append(message)
        return page, len(left) > len(page)


class FakeTurns:
    """Implements turn.Turns."""

    def __init__(self, record: FakeRecord) -> None:
        self._record = record

    async def open(self, owner: Owner, question: Question, title: str, history_limit: int) -> OpenedTurn:
        record, key = self._record, (owner.tenant_id, question.turn_id)
        record.held(owner, question.conversation_id)
        if key not in record.turns:
            record.turns[key] = FakeTurn(owner, question.conversation_id)
            record.positions[question.conversation_id] += 1
            now = record.touch(owner, question.conversation_id, title)
            ids = (uuid4(), question.conversation_id, question.turn_id)
            record.append(
                owner,
                Message(
                    *ids, record.positions[question.conversation_id], Role.USER, question.text, State.COMPLETE, now
                ),
            )
        saved = record.messages[*key, Role.USER]
        return OpenedTurn(saved, tuple(self._history(owner, saved, history_limit)))

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
                    answer.citations,
                    answer.usage,
                )
                record.append(owner, Message(*ids, *facts))
        return ClosedTurn(turn.state, record.messages.get((*key, Role.ASSISTANT)))

    def _history(self, owner: Owner, question: Message, limit: int) -> list[Message]:
        ended = {
            turn_id
            for (tenant_id, turn_id), turn in self._record.turns.items()
            if tenant_id == owner.tenant_id and turn.close_position and turn.close_position < question.position
        }
        earlier = [said for said in self._record.said_in(question.conversation_id) if said.turn_id in ended]
        history: list[Message] = []
        for message in reversed(earlier[len(earlier) - min(limit, len(earlier)) :]):
            history.insert(0, message)
            if sum(map(_size_bytes, history)) > MAX_TOGETHER_BYTES:
                return history[1:]
        return history


def _size_bytes(message: Message) -> int:
    citations = json.dumps([asdict(citation) for citation in message.citations], ensure_ascii=False)
    return len(message.text.encode()) + len(citations.encode())
