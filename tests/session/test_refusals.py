"""Requests that the RPCs of session refuse, over a real server."""

import base64
import json

import grpc
import pytest

from parley.session.v1 import session_pb2 as proto
from parley.session.v1 import session_service_pb2 as session
from parley.session.v1 import turn_record_service_pb2 as record
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from parley.session.v1.turn_record_service_pb2_grpc import TurnRecordServiceStub
from services.shared.errors import Invalid, Reason
from tests.refusals import refusal_of
from tests.session.conftest import Metadata
from tests.session.serving import NOBODYS, exchange, make, renaming

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
    ("ListMessages", session.ListMessagesRequest(conversation_id=NOBODYS, branch_turn_id=""), "branch_turn_id"),
    ("OpenTurn", record.OpenTurnRequest(turn_id="7", conversation_id=NOBODYS, text="Q"), "turn_id"),
    ("OpenTurn", record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS), "text"),
    ("OpenTurn", record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS, text="x" * 16_001), "text"),
    ("OpenTurn", record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS, text="a\0b"), "text"),
    (
        "OpenTurn",
        record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS, text="Q", history_limit=101),
        "history_limit",
    ),
    (
        "OpenTurn",
        record.OpenTurnRequest(turn_id=NOBODYS, conversation_id=NOBODYS, text="Q", replaces_turn_id="7"),
        "replaces_turn_id",
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
    refusal = await refusal_of(call(request_, metadata=me))
    assert (type(refusal), refusal.reason) == (Invalid, Reason.INVALID_FIELD)
    assert f"{field}: " in refusal.message


async def test_invalid_utf8_is_refused(channel: grpc.aio.Channel, me: Metadata) -> None:
    call = channel.unary_unary("/parley.session.v1.SessionService/GetConversation", lambda data: data)
    assert (await refusal_of(call(b"\x0a\x02\xff\xfe", metadata=me))).reason is Reason.MALFORMED_REQUEST


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
    assert (await refusal_of(sessions.ListConversations(request, metadata=me))).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("position", ["-1", "1.5", "", "x", "²", str(2**63), "9" * 250])
async def test_a_messages_token_that_is_none_of_ours_is_refused(
    sessions: SessionServiceStub, me: Metadata, position: str
) -> None:
    made = await make(sessions, me)
    token = token_of(made.id, "", NOBODYS, position)
    request = session.ListMessagesRequest(conversation_id=made.id, page_token=token)
    assert (await refusal_of(sessions.ListMessages(request, metadata=me))).reason in (
        Reason.PAGE_TOKEN_INVALID,
        Reason.INVALID_FIELD,  # longer than a token can be
    )


async def test_a_messages_token_of_another_conversation_is_refused(sessions: SessionServiceStub, me: Metadata) -> None:
    made = await make(sessions, me)
    for token in (token_of(NOBODYS, "", NOBODYS, "1"), token_of(made.id, "", "7", "1"), token_of(made.id, "1")):
        request = session.ListMessagesRequest(conversation_id=made.id, page_token=token)
        assert (await refusal_of(sessions.ListMessages(request, metadata=me))).reason is Reason.PAGE_TOKEN_INVALID


async def test_a_token_of_another_branch_is_refused(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made = await make(sessions, me)
    one = await exchange(turns, me, made.id, "one")
    request = session.ListMessagesRequest(conversation_id=made.id, page_size=1)
    request.page_token = (await sessions.ListMessages(request, metadata=me)).next_page_token
    request.branch_turn_id = one
    assert (await refusal_of(sessions.ListMessages(request, metadata=me))).reason is Reason.PAGE_TOKEN_INVALID
