"""The RPCs over a real server, on the fake record: values there and back, and every refusal."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from parley.session.v1 import session_pb2 as proto
from parley.session.v1 import session_service_pb2 as session
from parley.session.v1 import turn_record_service_pb2 as record
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub, add_SessionServiceServicer_to_server
from parley.session.v1.turn_record_service_pb2_grpc import (
    TurnRecordServiceStub,
    add_TurnRecordServiceServicer_to_server,
)
from services.session.handlers import RULES, SessionService, TurnRecordService
from services.shared.errors import Reason, Refusal
from services.shared.serving.status import refusal_in
from tests.conftest import ServeLocally, Signer
from tests.session.conftest import Record

TENANT, USER = uuid4(), uuid4()
NOBODYS = str(uuid4())
Metadata = tuple[tuple[str, str], ...]


@pytest.fixture
async def channel(serve_locally: ServeLocally, fake_record: Record) -> AsyncIterator[grpc.aio.Channel]:
    users = SessionService(fake_record.conversations, fake_record.messages)
    chat = TurnRecordService(fake_record.turns)
    register = (
        partial(add_SessionServiceServicer_to_server, users),
        partial(add_TurnRecordServiceServicer_to_server, chat),
    )
    async with serve_locally(*register, rules=RULES) as channel:
        yield channel


@pytest.fixture
def sessions(channel: grpc.aio.Channel) -> SessionServiceStub:
    return SessionServiceStub(channel)


@pytest.fixture
def turns(channel: grpc.aio.Channel) -> TurnRecordServiceStub:
    return TurnRecordServiceStub(channel)


@pytest.fixture
def me(signer: Signer) -> Metadata:
    return signer.metadata(tenant=TENANT, user=USER)


async def refusal_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, Refusal]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    refusal = refusal_in(failed.value)
    assert refusal, failed.value
    return failed.value.code(), refusal


async def reason_of(call: Awaitable[object]) -> Reason:
    _, refusal = await refusal_of(call)
    return refusal.reason


async def make(sessions: SessionServiceStub, me: Metadata, title: str = "") -> proto.Conversation:
    request = session.CreateConversationRequest(request_id=str(uuid4()), title=title)
    return (await sessions.CreateConversation(request, metadata=me)).conversation


async def exchange(turns: TurnRecordServiceStub, me: Metadata, conversation_id: str, question: str) -> None:
    turn_id = str(uuid4())
    ask = record.OpenTurnRequest(turn_id=turn_id, conversation_id=conversation_id, text=question)
    await turns.OpenTurn(ask, metadata=me)
    end = record.CloseTurnRequest(turn_id=turn_id, text=f"re: {question}", state=proto.MESSAGE_STATE_COMPLETE)
    await turns.CloseTurn(end, metadata=me)


def renaming(conversation_id: str, title: str, *paths: str) -> session.UpdateConversationRequest:
    conversation = proto.Conversation(id=conversation_id, title=title)
    return session.UpdateConversationRequest(conversation=conversation, update_mask=FieldMask(paths=paths))


async def test_a_conversation_is_made_read_renamed_and_deleted(sessions: SessionServiceStub, me: Metadata) -> None:
    made = await make(sessions, me, "Leave")
    assert (UUID(made.id).version, made.title) == (4, "Leave")
    assert made.create_time.ToMicroseconds() == made.update_time.ToMicroseconds() > 0
    by_id = session.GetConversationRequest(conversation_id=made.id)
    assert (await sessions.GetConversation(by_id, metadata=me)).conversation == made
    renamed = (await sessions.UpdateConversation(renaming(made.id, "Pay", "title"), metadata=me)).conversation
    assert (renamed.id, renamed.title) == (made.id, "Pay")
    assert renamed.update_time.ToMicroseconds() > made.update_time.ToMicroseconds()
    await sessions.DeleteConversation(session.DeleteConversationRequest(conversation_id=made.id), metadata=me)
    assert await reason_of(sessions.GetConversation(by_id, metadata=me)) is Reason.CONVERSATION_NOT_FOUND


async def test_a_repeated_create_returns_the_first_result(sessions: SessionServiceStub, me: Metadata) -> None:
    request = session.CreateConversationRequest(request_id=str(uuid4()), title="Leave")
    first = await sessions.CreateConversation(request, metadata=me)
    assert await sessions.CreateConversation(request, metadata=me) == first
    request.title = "Pay"
    code, refusal = await refusal_of(sessions.CreateConversation(request, metadata=me))
    assert (code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, Reason.REQUEST_ID_REUSED)


async def test_conversations_are_listed_page_by_page(sessions: SessionServiceStub, me: Metadata) -> None:
    made = [await make(sessions, me, str(number)) for number in range(5)]
    request, pages = session.ListConversationsRequest(page_size=2), []
    while not pages or request.page_token:
        page = await sessions.ListConversations(request, metadata=me)
        pages.append([found.title for found in page.conversations])
        request.page_token = page.next_page_token
    assert pages == [["4", "3"], ["2", "1"], ["0"]]
    whole = await sessions.ListConversations(session.ListConversationsRequest(), metadata=me)
    assert (list(whole.conversations), whole.next_page_token) == (made[::-1], "")


async def test_messages_are_listed_page_by_page(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made = await make(sessions, me)
    for question in ("one", "two"):
        await exchange(turns, me, made.id, question)
    request, pages = session.ListMessagesRequest(conversation_id=made.id, page_size=3), []
    while not pages or request.page_token:
        page = await sessions.ListMessages(request, metadata=me)
        pages.append([found.text for found in page.messages])
        request.page_token = page.next_page_token
    assert pages == [["one", "re: one", "two"], ["re: two"]]


async def test_a_turn_comes_back_as_it_was_saved(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made, turn_id = await make(sessions, me), str(uuid4())
    await exchange(turns, me, made.id, "Before")
    ask = record.OpenTurnRequest(turn_id=turn_id, conversation_id=made.id, text="How long?", history_limit=1)
    opened = await turns.OpenTurn(ask, metadata=me)
    assert await turns.OpenTurn(ask, metadata=me) == opened
    assert [message.text for message in opened.history] == ["re: Before"]
    assert opened.question.role == proto.MESSAGE_ROLE_USER
    assert not opened.question.HasField("usage")
    end = record.CloseTurnRequest(
        turn_id=turn_id,
        text="Twenty",
        state=proto.MESSAGE_STATE_INTERRUPTED,
        citations=[
            proto.Citation(
                number=1,
                document_id=str(uuid4()),
                passage_id=str(uuid4()),
                title="handbook.pdf",
                page=12,
                headings=["Leave", "Rules"],
                snippet="Twenty days",
            ),
            proto.Citation(number=2, title="notes.md"),
        ],
        usage=proto.Usage(prompt_tokens=400, completion_tokens=2),
    )
    answer = (await turns.CloseTurn(end, metadata=me)).answer
    assert (answer.text, answer.state, answer.role) == ("Twenty", end.state, proto.MESSAGE_ROLE_ASSISTANT)
    assert (list(answer.citations), answer.usage) == (list(end.citations), end.usage)
    assert not answer.citations[1].HasField("page")
    listed = await sessions.ListMessages(session.ListMessagesRequest(conversation_id=made.id), metadata=me)
    assert list(listed.messages)[2:] == [opened.question, answer]
    titled = await sessions.GetConversation(session.GetConversationRequest(conversation_id=made.id), metadata=me)
    assert titled.conversation.title == "Before"


async def test_a_turn_without_words_has_no_answer(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made, turn_id = await make(sessions, me), str(uuid4())
    await turns.OpenTurn(record.OpenTurnRequest(turn_id=turn_id, conversation_id=made.id, text="Q"), metadata=me)
    end = record.CloseTurnRequest(turn_id=turn_id, state=proto.MESSAGE_STATE_INTERRUPTED)
    assert not (await turns.CloseTurn(end, metadata=me)).HasField("answer")
    end.text = "Late words"
    code, refusal = await refusal_of(turns.CloseTurn(end, metadata=me))
    assert (code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, Reason.TURN_ALREADY_CLOSED)


async def test_an_answer_is_saved_with_a_token_that_expired_during_the_turn(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata, signer: Signer
) -> None:
    made, turn_id = await make(sessions, me), str(uuid4())
    ask = record.OpenTurnRequest(turn_id=turn_id, conversation_id=made.id, text="Q")
    await turns.OpenTurn(ask, metadata=me)
    end = record.CloseTurnRequest(turn_id=turn_id, text="A", state=proto.MESSAGE_STATE_COMPLETE)
    old, older = (signer.metadata(tenant=TENANT, user=USER, expires_in_s=-minutes * 60) for minutes in (55, 65))
    assert await reason_of(turns.CloseTurn(end, metadata=older)) is Reason.TOKEN_EXPIRED
    assert (await turns.CloseTurn(end, metadata=old)).answer.text == "A"
    assert await reason_of(turns.OpenTurn(ask, metadata=old)) is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize(
    "stranger", [{"tenant": TENANT, "user": uuid4()}, {"tenant": uuid4(), "user": USER}], ids=["colleague", "tenant"]
)
async def test_somebody_elses_conversation_is_not_found(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata, signer: Signer, stranger: dict[str, UUID]
) -> None:
    made, turn_id = await make(sessions, me, "Mine"), str(uuid4())
    ask = record.OpenTurnRequest(turn_id=turn_id, conversation_id=made.id, text="Q")
    await turns.OpenTurn(ask, metadata=me)
    them = signer.metadata(**stranger)
    for call in (
        sessions.GetConversation(session.GetConversationRequest(conversation_id=made.id), metadata=them),
        sessions.UpdateConversation(renaming(made.id, "Theirs", "title"), metadata=them),
        sessions.DeleteConversation(session.DeleteConversationRequest(conversation_id=made.id), metadata=them),
        sessions.ListMessages(session.ListMessagesRequest(conversation_id=made.id), metadata=them),
        turns.OpenTurn(ask, metadata=them),
    ):
        code, refusal = await refusal_of(call)
        assert (code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, Reason.CONVERSATION_NOT_FOUND)
    end = record.CloseTurnRequest(turn_id=turn_id, text="A", state=proto.MESSAGE_STATE_COMPLETE)
    code, refusal = await refusal_of(turns.CloseTurn(end, metadata=them))
    assert (code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, Reason.TURN_NOT_FOUND)
    assert not (await sessions.ListConversations(session.ListConversationsRequest(), metadata=them)).conversations


async def test_every_method_demands_a_token(channel: grpc.aio.Channel) -> None:
    for module in (session, record):
        (service,) = module.DESCRIPTOR.services_by_name.values()
        for method in service.methods:
            call = channel.unary_unary(f"/{service.full_name}/{method.name}", lambda data: data)
            assert await reason_of(call(b"")) is Reason.TOKEN_MISSING


FAULTS = [
    ("CreateConversation", session.CreateConversationRequest(), "request_id"),
    ("CreateConversation", session.CreateConversationRequest(request_id="7"), "request_id"),
    ("CreateConversation", session.CreateConversationRequest(request_id=NOBODYS, title="x" * 201), "title"),
    ("CreateConversation", session.CreateConversationRequest(request_id=NOBODYS, title="a\0b"), "title"),
    ("GetConversation", session.GetConversationRequest(conversation_id="' OR 1=1 --"), "conversation_id"),
    ("ListConversations", session.ListConversationsRequest(page_size=101), "page_size"),
    ("ListConversations", session.ListConversationsRequest(page_token="x" * 301), "page_token"),
    ("UpdateConversation", session.UpdateConversationRequest(), "conversation"),
    ("UpdateConversation", renaming("7", "Pay", "title"), "conversation"),
    ("UpdateConversation", renaming(NOBODYS, "", "title"), "conversation"),
    ("UpdateConversation", renaming(NOBODYS, "x" * 201, "title"), "conversation"),
    ("UpdateConversation", renaming(NOBODYS, "a\0b", "title"), "conversation.title"),
    ("UpdateConversation", renaming(NOBODYS, "Pay", "create_time"), "update_mask"),
    ("DeleteConversation", session.DeleteConversationRequest(), "conversation_id"),
    ("ListMessages", session.ListMessagesRequest(conversation_id=NOBODYS, page_size=101), "page_size"),
    ("OpenTurn", record.OpenTurnRequest(turn_id="7", conversation_id=NOBODYS, text="Q"), "turn_id"),
    ("OpenTurn", record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS), "text"),
    ("OpenTurn", record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS, text="x" * 16_001), "text"),
    ("OpenTurn", record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS, text="a\0b"), "text"),
    (
        "OpenTurn",
        record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS, text="Q", history_limit=101),
        "history_limit",
    ),
    ("CloseTurn", record.CloseTurnRequest(turn_id=NOBODYS, text="A"), "state"),
    ("CloseTurn", record.CloseTurnRequest(turn_id=NOBODYS, text="A", state=9), "state"),
    ("CloseTurn", record.CloseTurnRequest(turn_id=NOBODYS, text="x" * 200_001, state=1), "text"),
    ("CloseTurn", record.CloseTurnRequest(turn_id=NOBODYS, state=1, citations=[proto.Citation()] * 21), "citations"),
    (
        "CloseTurn",
        record.CloseTurnRequest(turn_id=NOBODYS, state=1, citations=[proto.Citation(headings=["", "\0"])]),
        "citations.headings",
    ),
]


@pytest.mark.parametrize(("method", "request_", "field"), FAULTS, ids=lambda value: str(value)[:40])
async def test_a_field_that_breaks_its_rule_is_named(
    sessions: SessionServiceStub,
    turns: TurnRecordServiceStub,
    me: Metadata,
    method: str,
    request_: object,
    field: str,
) -> None:
    call = getattr(sessions if hasattr(sessions, method) else turns, method)
    code, refusal = await refusal_of(call(request_, metadata=me))
    assert (code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_FIELD)
    assert f"{field}: " in refusal.message


async def test_invalid_utf8_is_refused(channel: grpc.aio.Channel, me: Metadata) -> None:
    call = channel.unary_unary("/parley.session.v1.SessionService/GetConversation", lambda data: data)
    assert await reason_of(call(b"\x0a\x02\xff\xfe", metadata=me)) is Reason.MALFORMED_REQUEST


def token_of(*key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "שלום",
        "\ud7ff" * 3,
        token_of(),
        token_of("2026-11-20T12:00:00+00:00"),
        token_of("yesterday", NOBODYS),
        token_of("2026-11-20T12:00:00+00:00", "7"),
        token_of("0001-01-01T00:00:00+14:00", NOBODYS),
        token_of("9999-12-31T23:59:59-14:00", NOBODYS),
        token_of(NOBODYS, "1"),
        token_of(1, 2),
    ],
)
async def test_a_conversations_token_that_is_none_of_ours_is_refused(
    sessions: SessionServiceStub, me: Metadata, token: str
) -> None:
    request = session.ListConversationsRequest(page_token=token)
    assert await reason_of(sessions.ListConversations(request, metadata=me)) is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("position", ["-1", "1.5", "", "x", "²", str(2**63), "9" * 250])
async def test_a_messages_token_that_is_none_of_ours_is_refused(
    sessions: SessionServiceStub, me: Metadata, position: str
) -> None:
    made = await make(sessions, me)
    request = session.ListMessagesRequest(conversation_id=made.id, page_token=token_of(made.id, position))
    assert await reason_of(sessions.ListMessages(request, metadata=me)) in (
        Reason.PAGE_TOKEN_INVALID,
        Reason.INVALID_FIELD,  # longer than a token can be
    )


async def test_a_messages_token_of_another_conversation_is_refused(sessions: SessionServiceStub, me: Metadata) -> None:
    made = await make(sessions, me)
    request = session.ListMessagesRequest(conversation_id=made.id, page_token=token_of(NOBODYS, "1"))
    assert await reason_of(sessions.ListMessages(request, metadata=me)) is Reason.PAGE_TOKEN_INVALID
