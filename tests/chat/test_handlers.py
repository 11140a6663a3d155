"""ChatService over a real server, on fakes: events there and back, refusals as statuses, and calls that end early."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from parley.chat.v1.chat_service_pb2 import (
    CancelTurnRequest,
    GetTurnRequest,
    RateTurnRequest,
    ResumeTurnRequest,
    StartTurnRequest,
    TurnOptions,
)
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub, add_ChatServiceServicer_to_server
from parley.chat.v1.turn_pb2 import FINISH_REASON_STOP, CancellationCause, TurnEvent, TurnRating, TurnState
from parley.errors.v1.error_reason_pb2 import ERROR_REASON_MODEL_UNAVAILABLE
from services.chat.handlers import ChatService
from services.chat.turn import Replaces
from services.shared.errors import NotFound, Reason, Refusal, Unavailable
from services.shared.serving.status import refusal_in
from tests.chat.conftest import CONVERSATION, Chat, a_faq, a_passage, until
from tests.conftest import ServeLocally, Signer
from tests.refusals import failure_of

TENANT, USER = uuid4(), uuid4()
Metadata = tuple[tuple[str, str], ...]


@pytest.fixture
async def stub(serve_locally: ServeLocally, chat: Chat) -> AsyncIterator[ChatServiceStub]:
    async with serve_locally(
        partial(add_ChatServiceServicer_to_server, ChatService(chat.turns, chat.records))
    ) as channel:
        yield ChatServiceStub(channel)


@pytest.fixture
def me(signer: Signer) -> Metadata:
    return signer.metadata(tenant=TENANT, user=USER)


def a_request(**fields: object) -> StartTurnRequest:
    default = {"request_id": str(uuid4()), "conversation_id": str(CONVERSATION), "text": "What is the answer?"}
    return StartTurnRequest(**{**default, **fields})


AT_ONCE = TurnOptions(reader_grace=Duration())  # the turn stops when its call ends


async def events_of(stub: ChatServiceStub, me: Metadata, request: StartTurnRequest) -> list[TurnEvent]:
    return [response.event async for response in stub.StartTurn(request, metadata=me, timeout=10)]


async def failed(call: Awaitable[object]) -> tuple[grpc.aio.AioRpcError, Refusal]:
    error = await failure_of(call)
    refusal = refusal_in(error)
    assert refusal, error
    return error, refusal


async def test_a_turn_on_the_wire(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    passage = a_passage("The answer is 42. " * 50, title="t" * 300)
    chat.documents.passages = [passage]
    chat.model.script = ("Forty", "-two.")
    events = await events_of(stub, me, a_request())
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len({event.turn_id for event in events}) == 1
    started, sources, *deltas, usage, completed = events
    assert (started.started.conversation_id, started.started.model) == (str(CONVERSATION), "chat")
    assert started.started.create_time.seconds > 0
    (citation,) = sources.sources.citations
    assert (citation.number, citation.document_id, citation.passage_id) == (1, passage.document_id, passage.id)
    assert (citation.page, list(citation.headings), len(citation.title)) == (7, ["Answers"], 255)
    assert citation.snippet == passage.text[:300]
    assert not sources.sources.degraded
    assert "".join(event.text_delta.text for event in deltas) == "Forty-two."
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens) == (7, 2)
    (closed,) = chat.conversations.answers.values()
    assert completed.completed.message_id == str(closed.message_id)
    assert completed.completed.finish_reason == FINISH_REASON_STOP


async def test_a_faq_is_cited_as_such(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    faq, passage = a_faq(), a_passage()
    chat.documents.passages = [faq, passage]
    _, sources, *_ = await events_of(stub, me, a_request())
    cited = [(citation.faq_id, citation.document_id, citation.title) for citation in sources.sources.citations]
    assert cited == [(faq.faq_id, "", "What is the answer?"), ("", passage.document_id, "guide.pdf")]
    (closed,) = chat.conversations.answers.values()
    assert [passage.faq_id for passage in closed.passages] == [faq.faq_id, ""]


async def test_options_reach_the_turn(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    options = TurnOptions(model="echo", max_output_tokens=9, temperature=0.5, search=False)
    events = await events_of(stub, me, a_request(options=options))
    assert events[0].started.model == "echo"
    assert chat.model.prompts[0].max_output_tokens == 9
    assert chat.documents.calls == 0


async def test_a_repeat_is_the_same_bytes(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    request = a_request()
    first, second = await asyncio.gather(events_of(stub, me, request), events_of(stub, me, request))
    await chat.settled()
    assert first == second == await events_of(stub, me, request)


async def test_refusals_come_with_their_reason(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    request = a_request()
    await events_of(stub, me, request)
    other = a_request(request_id=request.request_id, text="Another?")
    error, refusal = await failed(events_of(stub, me, other))
    assert (error.code(), refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, Reason.REQUEST_ID_REUSED)
    error, refusal = await failed(events_of(stub, me, a_request(options=TurnOptions(model="gpt"))))
    assert (error.code(), refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.MODEL_UNKNOWN)
    assert refusal.facts == {"models": "chat,echo"}
    error, refusal = await failed(events_of(stub, me, a_request(text="long " * 3000)))
    assert (error.code(), refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.PROMPT_TOO_LONG)
    chat.conversations.refusal = NotFound(Reason.CONVERSATION_NOT_FOUND, "no")
    error, refusal = await failed(events_of(stub, me, a_request()))
    assert (error.code(), refusal.reason) == (grpc.StatusCode.NOT_FOUND, Reason.CONVERSATION_NOT_FOUND)


@pytest.mark.parametrize("text", ["", " \n\t", "x" * 16_001])
async def test_a_bad_question_is_an_invalid_field(stub: ChatServiceStub, me: Metadata, chat: Chat, text: str) -> None:
    error, refusal = await failed(events_of(stub, me, a_request(text=text)))
    assert (error.code(), refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_FIELD)
    assert "text" in refusal.violations
    assert not chat.records.rows


async def test_a_failed_turn_says_so_in_its_last_event_and_in_its_status(
    stub: ChatServiceStub, me: Metadata, chat: Chat
) -> None:
    chat.model.script = (Unavailable(Reason.MODEL_UNAVAILABLE, "gone"),)
    events: list[TurnEvent] = []

    async def listen() -> None:
        async for response in stub.StartTurn(a_request(), metadata=me, timeout=10):
            events.append(response.event)

    error, refusal = await failed(listen())
    assert events[-1].failed.reason == ERROR_REASON_MODEL_UNAVAILABLE
    assert (error.code(), refusal.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.MODEL_UNAVAILABLE)
    assert refusal.retry_after_s


async def test_a_dropped_call_does_not_end_the_turn(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    rest = asyncio.Event()
    chat.model.script = ("one ", rest, "two")
    call = stub.StartTurn(a_request(), metadata=me, timeout=10)
    async for response in call:
        if response.event.text_delta.text:
            break
    call.cancel()
    last = response.event
    read = aiter(stub.ResumeTurn(ResumeTurnRequest(turn_id=last.turn_id), metadata=me))
    again = [(await anext(read)).event for _ in range(last.sequence)]
    assert again[-1] == last
    rest.set()
    assert [response.event async for response in read][-1].HasField("completed")
    assert [(closed.text, closed.whole) for closed in chat.conversations.answers.values()] == [("one two", True)]


async def test_without_a_grace_cancelling_the_call_stops_the_model(
    stub: ChatServiceStub, me: Metadata, chat: Chat
) -> None:
    chat.model.script = ("one ", asyncio.Event())
    call = stub.StartTurn(a_request(options=AT_ONCE), metadata=me, timeout=10)
    async for response in call:
        if response.event.text_delta.text:
            break
    call.cancel()
    await until(lambda: chat.model.speaking == 0)
    await chat.settled()
    assert [(closed.text, closed.whole) for closed in chat.conversations.answers.values()] == [("one ", False)]


async def test_without_a_grace_a_deadline_of_the_caller_stops_the_model(
    stub: ChatServiceStub, me: Metadata, chat: Chat
) -> None:
    chat.model.script = ("one ", asyncio.Event())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.StartTurn(a_request(options=AT_ONCE), metadata=me, timeout=0.3):
            pass
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await chat.settled()
    assert chat.model.speaking == 0


async def test_a_reader_that_stops_reading_holds_nobody_up(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    chat.model.script = tuple("x" * 1000 for _ in range(190))
    request = a_request()
    slow = stub.StartTurn(request, metadata=me, timeout=10)
    read = aiter(slow)
    assert (await anext(read)).event.HasField("started")
    events = await events_of(stub, me, request)
    assert events[-1].HasField("completed")
    rest = [response.event async for response in read]
    assert rest == events[1:]


async def test_without_a_grace_a_call_that_is_cancelled_while_it_waits_for_its_client_stops_the_model(
    stub: ChatServiceStub, me: Metadata, chat: Chat
) -> None:
    chat.model.script = (*("x" * 1000 for _ in range(190)), asyncio.Event())
    call = stub.StartTurn(a_request(options=AT_ONCE), metadata=me, timeout=10)
    await anext(aiter(call))
    await until(lambda: chat.log.appends and chat.log.appends[-1] and chat.model.speaking)
    call.cancel()
    await chat.settled()
    assert chat.model.speaking == 0


async def test_without_a_token_nothing_is_asked(stub: ChatServiceStub, chat: Chat) -> None:
    error, refusal = await failed(events_of(stub, (), a_request()))
    assert (error.code(), refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_MISSING)
    assert not chat.records.rows


async def test_a_turn_is_resumed_looked_at_and_rated(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    request = a_request()
    events = await events_of(stub, me, request)
    turn_id = events[0].turn_id
    resume = ResumeTurnRequest(turn_id=turn_id, after_sequence=2)
    assert [response.event async for response in stub.ResumeTurn(resume, metadata=me)] == events[2:]
    turn = (await stub.GetTurn(GetTurnRequest(turn_id=turn_id), metadata=me)).turn
    assert (turn.id, turn.request_id, turn.conversation_id) == (turn_id, request.request_id, str(CONVERSATION))
    assert (turn.model, turn.state, turn.usage.completion_tokens) == ("chat", TurnState.TURN_STATE_COMPLETED, 2)
    assert turn.message_id == events[-1].completed.message_id
    assert turn.create_time.seconds
    assert turn.first_text_time.seconds <= turn.end_time.seconds
    rate = RateTurnRequest(turn_id=turn_id, rating=TurnRating.TURN_RATING_BAD, reason="Too short.")
    rated = (await stub.RateTurn(rate, metadata=me)).turn
    assert (rated.rating, rated.rating_reason) == (TurnRating.TURN_RATING_BAD, "Too short.")
    assert (await stub.CancelTurn(CancelTurnRequest(turn_id=turn_id), metadata=me)).turn == rated


async def test_a_cancelled_turn_says_why_and_how_fast(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    chat.model.script = ("one ", asyncio.Event())
    call = stub.StartTurn(a_request(options=TurnOptions(reader_grace=Duration(seconds=9))), metadata=me, timeout=10)
    read = aiter(call)
    event = (await anext(read)).event
    while not event.text_delta.text:
        event = (await anext(read)).event
    cancelling = asyncio.ensure_future(stub.CancelTurn(CancelTurnRequest(turn_id=event.turn_id), metadata=me))
    await until(lambda: any(row.cancel_s for row in chat.records.rows.values()))
    await chat.ownership.beat()
    turn = (await cancelling).turn
    *_, last = [response.event async for response in read]
    assert last.cancelled.cause == CancellationCause.CANCELLATION_CAUSE_REQUESTED
    assert last.cancelled.freed_after_ms < 250
    assert (turn.state, turn.message_id) == (TurnState.TURN_STATE_CANCELLED, last.cancelled.message_id)


async def test_the_turns_of_others_are_not_found(stub: ChatServiceStub, me: Metadata, signer: Signer) -> None:
    turn_id = (await events_of(stub, me, a_request()))[0].turn_id
    stranger = signer.metadata(tenant=TENANT, user=uuid4())

    async def resume() -> None:
        async for _ in stub.ResumeTurn(ResumeTurnRequest(turn_id=turn_id), metadata=stranger):
            pass

    for call in (
        resume(),
        stub.GetTurn(GetTurnRequest(turn_id=turn_id), metadata=stranger),
        stub.RateTurn(RateTurnRequest(turn_id=turn_id), metadata=stranger),
        stub.CancelTurn(CancelTurnRequest(turn_id=turn_id), metadata=stranger),
    ):
        error, refusal = await failed(call)
        assert (error.code(), refusal.reason) == (grpc.StatusCode.NOT_FOUND, Reason.TURN_NOT_FOUND)


async def test_place_and_grace_reach_the_turn(stub: ChatServiceStub, me: Metadata, chat: Chat) -> None:
    beside = uuid4()
    options = TurnOptions(reader_grace=Duration(seconds=2, nanos=500_000_000))
    await events_of(stub, me, a_request(replaces_turn_id=str(beside), options=options))
    (row,) = chat.records.rows.values()
    assert row.turn.question.place == Replaces(beside)
    assert row.turn.question.reader_grace_s == 2.5
