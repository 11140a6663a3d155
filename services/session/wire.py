"""Between proto messages and domain values: conversations, messages, citations, and page tokens."""

from datetime import UTC, datetime
from uuid import UUID

from parley.session.v1 import session_pb2 as proto
from parley.session.v1.session_service_pb2 import ListMessagesRequest
from parley.session.v1.turn_record_service_pb2 import CloseTurnRequest, CloseTurnResponse, OpenTurnRequest
from services.session.conversation import Conversation, ConversationKey
from services.session.message import Citation, Message, Page, Role, State, Usage
from services.session.turn import Answer, ClosedTurn, Question
from services.shared.pages import foreign_token, page_key, page_token

_ROLES = {Role.USER: proto.MESSAGE_ROLE_USER, Role.ASSISTANT: proto.MESSAGE_ROLE_ASSISTANT}
_STATES = {
    State.COMPLETE: proto.MESSAGE_STATE_COMPLETE,
    State.INTERRUPTED: proto.MESSAGE_STATE_INTERRUPTED,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}
_LAST_POSITION = 2**63 - 1


def conversation(found: Conversation) -> proto.Conversation:
    """The message of a conversation."""
    return proto.Conversation(
        id=str(found.id), title=found.title, create_time=found.create_time, update_time=found.update_time
    )


def message(found: Message) -> proto.Message:
    """The message of a message."""
    usage = found.usage
    return proto.Message(
        id=str(found.id),
        conversation_id=str(found.conversation_id),
        turn_id=str(found.turn_id),
        role=_ROLES[found.role],
        text=found.text,
        state=_STATES[found.state],
        create_time=found.create_time,
        citations=map(_citation, found.citations),
        usage=proto.Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
        if usage
        else None,
        parent_turn_id=str(found.parent_turn_id) if found.parent_turn_id else "",
        sibling_turn_ids=map(str, found.sibling_turn_ids),
    )


def question(request: OpenTurnRequest) -> Question:
    """The question that a request opens a turn with."""
    return Question(
        UUID(request.turn_id),
        UUID(request.conversation_id),
        request.text,
        follows_turn_id=UUID(request.follows_turn_id) if request.HasField("follows_turn_id") else None,
        replaces_turn_id=UUID(request.replaces_turn_id) if request.HasField("replaces_turn_id") else None,
    )


def answer(request: CloseTurnRequest) -> Answer:
    """The answer that a request closes a turn with."""
    usage = request.usage
    return Answer(
        turn_id=UUID(request.turn_id),
        text=request.text,
        state=_STATES_BACK[request.state],
        citations=tuple(map(_citation_given, request.citations)),
        usage=Usage(usage.prompt_tokens, usage.completion_tokens) if request.HasField("usage") else None,
    )


def closed(turn: ClosedTurn) -> CloseTurnResponse:
    """How a turn ended."""
    return CloseTurnResponse(answer=message(turn.answer) if turn.answer else None, state=_STATES[turn.state])


def conversations_token(last: Conversation) -> str:
    """The page token of what comes after `last`."""
    return page_token(last.update_time, last.id)


def after_conversation(token: str) -> ConversationKey | None:
    """The conversation that the page of this token comes after; None for the first page. Raises Invalid."""
    if (key := page_key(token, 2)) is None:
        return None
    try:
        time, conversation_id = datetime.fromisoformat(key[0]), UUID(key[1])
        if time.tzinfo is None:
            raise foreign_token()
        return time.astimezone(UTC), conversation_id
    except (ValueError, OverflowError) as error:
        raise foreign_token() from error


def messages_token(request: ListMessagesRequest, page: Page) -> str:
    """The page token of what comes after `page` in its branch; empty after the last page."""
    if not page.more:
        return ""
    return page_token(*_list_of(request), page.tip_turn_id, page.messages[-1].position)


def after_message(request: ListMessagesRequest) -> tuple[UUID | None, int]:
    """A turn of the branch and the position that the page comes after; 0 for the first page. Raises Invalid."""
    if (key := page_key(request.page_token, 4)) is None:
        return _branch_turn_id(request), 0
    *asked, tip_turn_id, position = key
    if tuple(asked) != _list_of(request) or not position.isdecimal() or int(position) > _LAST_POSITION:
        raise foreign_token()
    try:
        return UUID(tip_turn_id), int(position)
    except ValueError as error:
        raise foreign_token() from error


def _branch_turn_id(request: ListMessagesRequest) -> UUID | None:
    return UUID(request.branch_turn_id) if request.HasField("branch_turn_id") else None


def _list_of(request: ListMessagesRequest) -> tuple[str, str]:
    """What all pages of a list have in common."""
    return str(UUID(request.conversation_id)), str(_branch_turn_id(request) or "")


def _citation(found: Citation) -> proto.Citation:
    return proto.Citation(
        number=found.number,
        document_id=found.document_id,
        passage_id=found.passage_id,
        title=found.title,
        page=found.page,
        headings=found.headings,
        snippet=found.snippet,
        faq_id=found.faq_id,
    )


def _citation_given(given: proto.Citation) -> Citation:
    return Citation(
        number=given.number,
        document_id=given.document_id,
        passage_id=given.passage_id,
        title=given.title,
        page=given.page if given.HasField("page") else None,
        headings=tuple(given.headings),
        snippet=given.snippet,
        faq_id=given.faq_id,
    )
