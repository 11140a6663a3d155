"""The RPCs over a real server, on the fake record: values there and back."""

from uuid import UUID, uuid4

import grpc
import pytest

from parley.session.v1 import session_pb2 as proto
from parley.session.v1 import session_service_pb2 as session
from parley.session.v1 import turn_record_service_pb2 as record
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from parley.session.v1.turn_record_service_pb2_grpc import TurnRecordServiceStub
from services.shared.errors import AlreadyExists, NotFound, Reason
from tests.conftest import Signer
from tests.refusals import refusal_of
from tests.session.conftest import TENANT, USER, Metadata
from tests.session.serving import NOBODYS, exchange, listed, make, renaming


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
    assert (await refusal_of(sessions.GetConversation(by_id, metadata=me))).reason is Reason.CONVERSATION_NOT_FOUND


async def test_a_repeated_create_returns_the_first_result(sessions: SessionServiceStub, me: Metadata) -> None:
    request = session.CreateConversationRequest(request_id=str(uuid4()), title="Leave")
    first = await sessions.CreateConversation(request, metadata=me)
    assert await sessions.CreateConversation(request, metadata=me) == first
    request.title = "Pay"
    refusal = await refusal_of(sessions.CreateConversation(request, metadata=me))
    assert (type(refusal), refusal.reason) == (AlreadyExists, Reason.REQUEST_ID_REUSED)


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


async def test_a_replaced_question_begins_a_branch_beside_the_old_one(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made = await make(sessions, me)
    one = await exchange(turns, me, made.id, "one")
    two = await exchange(turns, me, made.id, "two")
    edited = await exchange(turns, me, made.id, "two, edited", replaces_turn_id=two)
    followed = await exchange(turns, me, made.id, "three", follows_turn_id=two)
    current = await listed(sessions, me, made.id)
    assert [message.text for message in current[::2]] == ["one", "two", "three"]
    assert [message.parent_turn_id for message in current] == ["", "", one, one, two, two]
    assert [list(message.sibling_turn_ids) for message in current[::2]] == [[one], [two, edited], [followed]]
    other = await listed(sessions, me, made.id, branch_turn_id=edited)
    assert [message.text for message in other[::2]] == ["one", "two, edited"]
    assert await listed(sessions, me, made.id, branch_turn_id=two.upper()) == current


async def test_opening_beside_a_turn_returns_what_was_said_before_it(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made = await make(sessions, me)
    one = await exchange(turns, me, made.id, "one")
    two = await exchange(turns, me, made.id, "two")
    ask = record.OpenTurnRequest(
        turn_id=str(uuid4()), conversation_id=made.id, text="two", history_limit=100, replaces_turn_id=two
    )
    opened = await turns.OpenTurn(ask, metadata=me)
    assert [message.text for message in opened.history] == ["one", "re: one"]
    assert (opened.question.parent_turn_id, list(opened.question.sibling_turn_ids)) == (one, [two, ask.turn_id])
    assert await turns.OpenTurn(ask, metadata=me) == opened
    ask.follows_turn_id = two
    refusal = await refusal_of(turns.OpenTurn(ask, metadata=me))
    assert (type(refusal), refusal.reason) == (AlreadyExists, Reason.REQUEST_ID_REUSED)


async def test_a_turn_that_is_not_in_the_conversation_is_not_found(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made, other = await make(sessions, me), await make(sessions, me)
    for turn_id in (NOBODYS, await exchange(turns, me, other.id, "elsewhere")):
        ask = {"turn_id": str(uuid4()), "conversation_id": made.id, "text": "Q"}
        for call in (
            turns.OpenTurn(record.OpenTurnRequest(**ask, follows_turn_id=turn_id), metadata=me),
            turns.OpenTurn(record.OpenTurnRequest(**ask, replaces_turn_id=turn_id), metadata=me),
            listed(sessions, me, made.id, branch_turn_id=turn_id),
        ):
            refusal = await refusal_of(call)
            assert (type(refusal), refusal.reason) == (NotFound, Reason.TURN_NOT_FOUND)
    assert await listed(sessions, me, made.id) == []


async def test_pages_of_a_branch_stay_in_it(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata
) -> None:
    made = await make(sessions, me)
    one, two = [await exchange(turns, me, made.id, question) for question in ("one", "two")]
    for which in ({}, {"branch_turn_id": one}):
        request = session.ListMessagesRequest(conversation_id=made.id, page_size=3, **which)
        page = await sessions.ListMessages(request, metadata=me)
        assert len(page.next_page_token) <= 300
        await exchange(turns, me, made.id, "two, edited", replaces_turn_id=two)
        request.page_token = page.next_page_token
        rest = await sessions.ListMessages(request, metadata=me)
        assert ([message.text for message in rest.messages], rest.next_page_token) == (["re: two"], "")
        await exchange(turns, me, made.id, "two", replaces_turn_id=two)
        two = (await listed(sessions, me, made.id))[-1].turn_id


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
            proto.Citation(number=3, title="How long?", faq_id=str(uuid4())),
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
    closed = await turns.CloseTurn(end, metadata=me)
    assert (closed.HasField("answer"), closed.state) == (False, proto.MESSAGE_STATE_INTERRUPTED)


async def test_a_turn_is_opened_again_and_closed_with_a_token_that_expired_meanwhile(
    sessions: SessionServiceStub, turns: TurnRecordServiceStub, me: Metadata, signer: Signer
) -> None:
    made, turn_id = await make(sessions, me), str(uuid4())
    ask = record.OpenTurnRequest(turn_id=turn_id, conversation_id=made.id, text="Q")
    opened = await turns.OpenTurn(ask, metadata=me)
    end = record.CloseTurnRequest(turn_id=turn_id, text="A", state=proto.MESSAGE_STATE_COMPLETE)
    old, older = (signer.metadata(tenant=TENANT, user=USER, expires_in_s=-minutes * 60) for minutes in (55, 65))
    for call in (turns.OpenTurn(ask, metadata=older), turns.CloseTurn(end, metadata=older)):
        assert (await refusal_of(call)).reason is Reason.TOKEN_EXPIRED
    assert await turns.OpenTurn(ask, metadata=old) == opened
    assert (await turns.CloseTurn(end, metadata=old)).answer.text == "A"
    reading = sessions.ListMessages(session.ListMessagesRequest(conversation_id=made.id), metadata=old)
    assert (await refusal_of(reading)).reason is Reason.TOKEN_EXPIRED


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
        refusal = await refusal_of(call)
        assert (type(refusal), refusal.reason) == (NotFound, Reason.CONVERSATION_NOT_FOUND)
    end = record.CloseTurnRequest(turn_id=turn_id, text="A", state=proto.MESSAGE_STATE_COMPLETE)
    refusal = await refusal_of(turns.CloseTurn(end, metadata=them))
    assert (type(refusal), refusal.reason) == (NotFound, Reason.TURN_NOT_FOUND)
    assert not (await sessions.ListConversations(session.ListConversationsRequest(), metadata=them)).conversations


async def test_every_method_demands_a_token(channel: grpc.aio.Channel) -> None:
    for module in (session, record):
        (service,) = module.DESCRIPTOR.services_by_name.values()
        for method in service.methods:
            call = channel.unary_unary(f"/{service.full_name}/{method.name}", lambda data: data)
            assert (await refusal_of(call(b""))).reason is Reason.TOKEN_MISSING
