"""`parley ask`: prints the words as they come, then where they come from."""

import asyncio
import sys
import unicodedata
import uuid
from datetime import timedelta

from parley_sdk.parley.chat.v1 import CancellationCause, StartTurnRequest, TurnOptions
from parley_sdk.parley.session.v1 import Citation, CreateConversationRequest, SessionServiceStub
from stack.client.account import signed_in
from stack.client.conversation import last_asked
from stack.client.edge import CALL_TIMEOUT_S, INTERRUPTED, Edge, console, end, errors
from stack.client.following import Following
from stack.client.lasting import LONGEST_BREAK_S

_WHY_STOPPED = {
    CancellationCause.NO_READER: "nobody read it",
    CancellationCause.DEADLINE: "it took longer than an answer may",
    CancellationCause.STOPPED: "the mesh was stopped",
}


async def ask(edge: Edge, question: str, conversation_id: str | None, model: str | None) -> int:
    """One turn, in a new conversation unless one is given; 1 when the answer did not come whole.

    Goes on after a broken connection. Cancelled (Ctrl-C), it stops the turn too.
    """
    conversation_id = conversation_id or await _new_conversation(edge)
    return await _follow(edge, _turn(conversation_id, question, model))


async def ask_again(edge: Edge, question: str | None, conversation_id: str | None, model: str | None) -> int:
    """The same in the place of the last question: that one, or another `question`."""
    last = await last_asked(edge, conversation_id)
    turn = _turn(last.conversation_id, question or last.text, model)
    turn.replaces_turn_id = last.turn_id
    return await _follow(edge, turn)


def _turn(conversation_id: str, question: str, model: str | None) -> StartTurnRequest:
    return StartTurnRequest(
        request_id=str(uuid.uuid4()),
        conversation_id=conversation_id,
        text=question,
        # So long the command tries to come back; nobody else reads the turn meanwhile.
        options=TurnOptions(model=model, reader_grace=timedelta(seconds=LONGEST_BREAK_S)),
    )


async def _follow(edge: Edge, turn: StartTurnRequest) -> int:
    following = Following(edge, turn)
    try:
        citations, whole = await _print_answer(following)
    except asyncio.CancelledError:
        print()
        if await following.cancel():
            end("Stopped; the words so far are kept.", INTERRUPTED)
        end(f"The mesh can't be told: it stops the answer after {LONGEST_BREAK_S:.0f} s without a reader.", INTERRUPTED)
    _print_sources(citations)
    console.print(f"To go on: parley ask --conversation {turn.conversation_id} ...", style="dim", highlight=False)
    return 0 if whole else 1


async def _new_conversation(edge: Edge) -> str:
    async with signed_in(edge) as (channel, metadata):
        request = CreateConversationRequest(request_id=str(uuid.uuid4()))
        sessions = SessionServiceStub(channel, metadata=metadata)
        created = await sessions.create_conversation(request, timeout=CALL_TIMEOUT_S)
        assert created.conversation
        return created.conversation.id


async def _print_answer(following: Following) -> tuple[list[Citation], bool]:
    """What the answer draws from, and whether it came whole."""
    citations: list[Citation] = []
    whole = False
    async for event in following.events():
        if event.sources is not None:
            citations = event.sources.citations
            if event.sources.degraded:
                errors.print("The documents can't be searched just now; the answer comes without them.")
        elif event.text_delta is not None:
            sys.stdout.write(printable(event.text_delta.text))
            sys.stdout.flush()
        elif event.rewound is not None:
            print("\n\nSome words were lost. The answer starts again:\n")
        elif event.cancelled is not None:
            why = _WHY_STOPPED.get(event.cancelled.cause)
            errors.print(f"\nThe answer was stopped{f', for {why}' if why else ''}; the words so far are kept.")
        elif event.failed is not None:
            errors.print(
                f"\n{event.failed.message} ({event.failed.reason.name})", style="red", highlight=False, markup=False
            )
        elif event.completed is not None:
            whole = True
    print()
    return citations, whole


def printable(text: str) -> str:
    """Text without what would steer a terminal: control characters and direction overrides."""
    return "".join(
        character
        for character in text
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs") or character == "\u200d"
    )


def _print_sources(citations: list[Citation]) -> None:
    if not citations:
        return
    print("\nSources")
    for citation in citations:
        if citation.faq_id:
            print(printable(f"[{citation.number}] FAQ: {citation.title}"))
            continue
        page = f", page {citation.page}" if citation.page else ""
        headings = f" ({' > '.join(citation.headings)})" if citation.headings else ""
        print(printable(f"[{citation.number}] {citation.title}{page}{headings}"))
