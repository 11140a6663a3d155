"""The calls to session and knowledge, against servers in this process that keep their contract."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID, uuid4

import grpc
import pytest

from parley.knowledge.v1 import document_pb2, knowledge_service_pb2
from parley.knowledge.v1.knowledge_service_pb2_grpc import (
    KnowledgeServiceServicer,
    add_KnowledgeServiceServicer_to_server,
)
from parley.session.v1 import session_pb2, turn_record_service_pb2
from parley.session.v1.turn_record_service_pb2_grpc import (
    TurnRecordServiceServicer,
    add_TurnRecordServiceServicer_to_server,
)
from services.chat.peers import KnowledgePeer, SessionPeer
from services.chat.turn import Asker, Message, Role, SavedAnswer, Turn, Usage
from services.shared.errors import NotFound, Reason, Refusal, Unavailable
from services.shared.serving.identity import caller_of
from tests.chat.conftest import a_faq, a_passage, a_question, a_turn
from tests.conftest import ServeLocally, Signer


class FakeSession(TurnRecordServiceServicer):
    def __init__(self) -> None:
        self.requests: list[object] = []
        self.users: list[object] = []
        self.fault: Exception | None = None
        self.answer_id = str(uuid4())

    async def OpenTurn(
        self, request: turn_record_service_pb2.OpenTurnRequest, context: grpc.aio.ServicerContext
    ) -> turn_record_service_pb2.OpenTurnResponse:
        self._take(request, context)
        history = [
            session_pb2.Message(role=session_pb2.MESSAGE_ROLE_USER, text="Hello"),
            session_pb2.Message(role=session_pb2.MESSAGE_ROLE_ASSISTANT, text="Hi"),
        ]
        return turn_record_service_pb2.OpenTurnResponse(history=history)

    async def CloseTurn(
        self, request: turn_record_service_pb2.CloseTurnRequest, context: grpc.aio.ServicerContext
    ) -> turn_record_service_pb2.CloseTurnResponse:
        self._take(request, context)
        answer = session_pb2.Message(
            id=self.answer_id, text=request.text, citations=request.citations, usage=request.usage
        )
        return turn_record_service_pb2.CloseTurnResponse(answer=answer if request.text else None, state=request.state)

    def _take(self, request: object, context: grpc.aio.ServicerContext) -> None:
        self.requests.append(request)
        self.users.append(caller_of(context).user_id)
        if self.fault:
            raise self.fault


class FakeKnowledge(KnowledgeServiceServicer):
    def __init__(self) -> None:
        self.requests: list[knowledge_service_pb2.SearchRequest] = []
        self.hangs = False

    async def Search(
        self, request: knowledge_service_pb2.SearchRequest, context: grpc.aio.ServicerContext
    ) -> knowledge_service_pb2.SearchResponse:
        self.requests.append(request)
        if self.hangs:
            await asyncio.Event().wait()
        passages = [
            document_pb2.Passage(id="p1", document_id="d1", filename="a.pdf", page=3, headings=["One"], text="Text."),
            document_pb2.Passage(id="p2", document_id="d2", filename="b.md", text="More."),
            document_pb2.Passage(id="q1", faq_id="q1", filename="Why?", text="Why?\nSo."),
        ]
        return knowledge_service_pb2.SearchResponse(passages=passages)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def knowledge() -> FakeKnowledge:
    return FakeKnowledge()


@pytest.fixture
async def channel(
    serve_locally: ServeLocally, session: FakeSession, knowledge: FakeKnowledge
) -> AsyncIterator[grpc.aio.Channel]:
    register = (
        partial(add_TurnRecordServiceServicer_to_server, session),
        partial(add_KnowledgeServiceServicer_to_server, knowledge),
    )
    async with serve_locally(*register) as channel:
        yield channel


@asynccontextmanager
async def nobody() -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        yield channel


@pytest.fixture
def turn(signer: Signer) -> Turn:
    user_id = uuid4()
    asker = Asker(uuid4(), user_id, signer.token(user=user_id))
    return a_turn(asker, a_question("Why?"))


async def test_opening_a_turn_saves_the_question_and_brings_the_history(
    channel: grpc.aio.Channel, session: FakeSession, turn: Turn
) -> None:
    history = await SessionPeer(channel, history_messages=9).open_turn(turn)
    assert history == [Message(Role.USER, "Hello"), Message(Role.ASSISTANT, "Hi")]
    (request,) = session.requests
    assert request == turn_record_service_pb2.OpenTurnRequest(
        turn_id=str(turn.id), conversation_id=str(turn.question.conversation_id), text="Why?", history_limit=9
    )
    assert session.users == [turn.asker.user_id]


async def test_closing_a_turn_saves_the_answer_with_its_sources(
    channel: grpc.aio.Channel, session: FakeSession, turn: Turn
) -> None:
    peer = SessionPeer(channel, history_messages=9)
    shown = (a_faq(), a_passage())
    saved = await peer.close_turn(turn, "Because.", whole=False, passages=shown, usage=Usage(7, 2))
    assert (saved.text, saved.whole, saved.usage) == ("Because.", False, Usage(7, 2))
    assert (saved.passages, saved.message_id) == (shown, UUID(session.answer_id))
    (request,) = session.requests
    assert (request.text, request.state) == ("Because.", session_pb2.MESSAGE_STATE_INTERRUPTED)
    assert [(citation.number, citation.faq_id) for citation in request.citations] == [(1, shown[0].faq_id), (2, "")]
    assert (request.usage.prompt_tokens, request.usage.completion_tokens) == (7, 2)
    nothing = SavedAnswer("", whole=True, passages=(), usage=Usage(), message_id=None)
    assert await peer.close_turn(turn, "", whole=True, passages=[], usage=Usage()) == nothing


async def test_refusals_of_session_pass_as_they_are(
    channel: grpc.aio.Channel, session: FakeSession, turn: Turn
) -> None:
    session.fault = NotFound(Reason.CONVERSATION_NOT_FOUND, "No such conversation.")
    with pytest.raises(NotFound) as refused:
        await SessionPeer(channel, 9).open_turn(turn)
    assert (refused.value.reason, refused.value.message) == (Reason.CONVERSATION_NOT_FOUND, "No such conversation.")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (NotFound(Reason.TURN_NOT_FOUND, "No such turn."), Reason.CONVERSATION_NOT_FOUND),
        (Unavailable(Reason.RECORD_UNAVAILABLE, "down"), Reason.CONVERSATION_UNAVAILABLE),
    ],
)
async def test_an_answer_that_is_not_saved_is_named_for_what_is_lost(
    channel: grpc.aio.Channel, session: FakeSession, turn: Turn, fault: Refusal, reason: Reason
) -> None:
    session.fault = fault
    with pytest.raises(Refusal) as refused:
        await SessionPeer(channel, 9).close_turn(turn, "x", whole=True, passages=[], usage=Usage())
    assert refused.value.reason is reason


async def test_a_defect_of_session_is_a_conversation_that_is_unavailable(
    channel: grpc.aio.Channel, session: FakeSession, turn: Turn
) -> None:
    session.fault = ZeroDivisionError()
    with pytest.raises(Unavailable) as refused:
        await SessionPeer(channel, 9).open_turn(turn)
    assert refused.value.reason is Reason.CONVERSATION_UNAVAILABLE


async def test_without_session_the_conversation_is_unavailable_at_once(turn: Turn) -> None:
    async with nobody() as channel, asyncio.timeout(2):
        for call in (
            SessionPeer(channel, 9).open_turn(turn),
            SessionPeer(channel, 9).close_turn(turn, "x", whole=True, passages=[], usage=Usage()),
        ):
            with pytest.raises(Unavailable) as refused:
                await call
            assert refused.value.reason is Reason.CONVERSATION_UNAVAILABLE


async def test_search_brings_passages(channel: grpc.aio.Channel, knowledge: FakeKnowledge, turn: Turn) -> None:
    peer = KnowledgePeer(channel, passages=4, timeout_s=2)
    first, second, faq = await peer.search(turn.asker, "x" * 3000)
    assert (first.id, first.document_id, first.title, first.page) == ("p1", "d1", "a.pdf", 3)
    assert (first.headings, first.text, second.page) == (("One",), "Text.", None)
    assert (faq.id, faq.document_id, faq.title, faq.faq_id, first.faq_id) == ("q1", "", "Why?", "q1", "")
    (request,) = knowledge.requests
    assert (request.query, request.limit) == ("x" * 2000, 4)


async def test_a_search_that_takes_too_long_is_given_up(
    channel: grpc.aio.Channel, knowledge: FakeKnowledge, turn: Turn
) -> None:
    knowledge.hangs = True
    with pytest.raises(Refusal):
        await KnowledgePeer(channel, passages=4, timeout_s=0.2).search(turn.asker, "Why?")
    async with nobody() as channel:
        with pytest.raises(Unavailable) as refused:
            await KnowledgePeer(channel, passages=4, timeout_s=1).search(turn.asker, "Why?")
        assert refused.value.reason is Reason.SEARCH_UNAVAILABLE
