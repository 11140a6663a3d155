"""Conversations, turns and messages in PostgreSQL; each change with its event in one statement, see queries.sql."""

from dataclasses import asdict
from uuid import UUID, uuid4

import asyncpg

from parley.session.v1.session_events_pb2 import ConversationCreated, ConversationDeleted, MessageAppended
from services.session.conversation import Conversation, ConversationKey, Owner, conversation_not_found
from services.session.message import MAX_TOGETHER_BYTES, Citation, Message, Page, Role, State, Usage, turn_not_found
from services.session.turn import Answer, ClosedTurn, OpenedTurn, Question
from services.shared.postgres.database import Database

# Only the turn's row knows the conversation of an answer, so that statement completes the event: this is how the
# field begins on the wire (its number, type "length-delimited", 36 bytes), and a UUID's text is what follows.
_CONVERSATION_ID_FOLLOWS = bytes([MessageAppended.CONVERSATION_ID_FIELD_NUMBER << 3 | 2, 36])


class StoredConversations:
    """Implements conversation.Conversations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, owner: Owner, request_id: UUID, title: str, digest: bytes) -> tuple[Conversation, bytes]:
        conversation_id = uuid4()
        event = ConversationCreated(**_names(owner), conversation_id=str(conversation_id)).SerializeToString()
        values = (conversation_id, title, request_id, digest, event)
        (row,) = await self._database.all("create_conversation", *_key(owner), *values)
        return _conversation(row), row["request_digest"]

    async def get(self, owner: Owner, conversation_id: UUID) -> Conversation:
        return _conversation(await self._database.one("get_conversation", *_key(owner), conversation_id))

    async def page(self, owner: Owner, after: ConversationKey | None, limit: int) -> list[Conversation]:
        rows = await self._database.all("list_conversations", *_key(owner), *(after or (None, None)), limit)
        return [_conversation(row) for row in rows]

    async def rename(self, owner: Owner, conversation_id: UUID, title: str) -> Conversation:
        return _conversation(await self._database.one("rename_conversation", *_key(owner), conversation_id, title))

    async def delete(self, owner: Owner, conversation_id: UUID) -> None:
        event = ConversationDeleted(**_names(owner), conversation_id=str(conversation_id)).SerializeToString()
        if not await self._database.one("delete_conversation", *_key(owner), conversation_id, event):
            raise conversation_not_found()


class StoredMessages:
    """Implements message.Messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, owner: Owner, conversation_id: UUID, after_position: int, limit: int, branch_turn_id: UUID | None = None
    ) -> Page:
        values = (conversation_id, after_position, limit, MAX_TOGETHER_BYTES, branch_turn_id)
        rows = await self._database.all("list_messages", *_key(owner), *values)
        if not rows:
            raise conversation_not_found()
        tip_turn_id = rows[0]["tip_turn_id"]
        if branch_turn_id and not tip_turn_id:
            raise turn_not_found()
        messages = tuple(_message(row) for row in rows if row["id"])
        return Page(messages, bool(messages) and rows[0]["found"] > len(messages), tip_turn_id)


class StoredTurns:
    """Implements turn.Turns. Each loop goes round again only when another change came first: then it is visible."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, owner: Owner, question: Question, title: str, history_limit: int) -> OpenedTurn:
        message_id = uuid4()
        event = MessageAppended(
            **_names(owner),
            conversation_id=str(question.conversation_id),
            message_id=str(message_id),
            turn_id=str(question.turn_id),
        ).SerializeToString()
        values = (question.conversation_id, question.turn_id, message_id, question.text, title, event)
        place = (question.follows_turn_id, question.replaces_turn_id)
        limits = (history_limit, MAX_TOGETHER_BYTES)
        while True:
            rows = await self._database.all("open_turn", *_key(owner), *values, *place, *limits)
            if not rows:
                raise conversation_not_found()
            found = rows[-1]
            if found["id"] and not found["stale"]:
                *history, saved = map(_message, rows)
                return OpenedTurn(saved, tuple(history))
            if not found["id"] and not found["placed"]:
                raise turn_not_found()

    async def close(self, owner: Owner, answer: Answer) -> ClosedTurn:
        message_id = uuid4()
        event = MessageAppended(**_names(owner), message_id=str(message_id), turn_id=str(answer.turn_id))
        values = (
            answer.turn_id,
            answer.state,
            message_id,
            answer.text,
            [kept(citation) for citation in answer.citations],
            answer.usage and answer.usage.prompt_tokens,
            answer.usage and answer.usage.completion_tokens,
            event.SerializeToString() + _CONVERSATION_ID_FOLLOWS,
        )
        while True:
            row = await self._database.one("close_turn", *_key(owner), *values)
            if row is None:
                raise turn_not_found()
            saved = _message(row) if row["id"] else None
            if row["closed_now"]:
                return ClosedTurn(answer.state, saved)
            if row["turn_state"] != "open":
                return ClosedTurn(State(row["turn_state"]), saved)


def _key(owner: Owner) -> tuple[UUID, UUID]:
    return owner.tenant_id, owner.user_id


def _names(owner: Owner) -> dict[str, str]:
    return {"tenant_id": str(owner.tenant_id), "user_id": str(owner.user_id)}


def _conversation(row: asyncpg.Record | None) -> Conversation:
    if row is None:
        raise conversation_not_found()
    return Conversation(row["id"], row["title"], row["create_time"], row["update_time"])


def _message(row: asyncpg.Record) -> Message:
    answers = row["prompt_tokens"] is not None
    return Message(
        id=row["id"],
        conversation_id=row["conversation_id"],
        turn_id=row["turn_id"],
        position=row["position"],
        role=Role(row["role"]),
        text=row["text"],
        state=State(row["state"]),
        create_time=row["create_time"],
        parent_turn_id=row["parent_turn_id"],
        sibling_turn_ids=tuple(row["sibling_turn_ids"]),
        citations=tuple(_citation(entry) for entry in row["citations"]),
        usage=Usage(row["prompt_tokens"], row["completion_tokens"]) if answers else None,
    )


def kept(citation: Citation) -> dict[str, object]:
    """As it is stored. A replica from before there were FAQs reads every citation of a passage."""
    entry = asdict(citation)
    return entry if citation.faq_id else {name: value for name, value in entry.items() if name != "faq_id"}


def _citation(entry: dict) -> Citation:
    return Citation(**{**entry, "headings": tuple(entry["headings"])})
