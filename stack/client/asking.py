"""`parley ask`: prints the words as they come, then where they come from."""

import sys
import unicodedata
import uuid

from parley_sdk.parley.chat.v1 import ChatServiceStub, StartTurnRequest, TurnOptions
from parley_sdk.parley.session.v1 import Citation, CreateConversationRequest, SessionServiceStub
from stack.client.account import signed_in
from stack.client.edge import CALL_TIMEOUT_S, Edge, console, errors

_TURN_TIMEOUT_S = 330.0


async def ask(edge: Edge, question: str, conversation_id: str | None, model: str | None) -> int:
    """One turn, in a new conversation unless one is given; 1 when the answer did not come whole."""
    async with signed_in(edge) as (channel, metadata):
        if conversation_id is None:
            sessions = SessionServiceStub(channel, metadata=metadata)
            request = CreateConversationRequest(request_id=str(uuid.uuid4()))
            created = await sessions.create_conversation(request, timeout=CALL_TIMEOUT_S)
            assert created.conversation
            conversation_id = created.conversation.id
        turn = StartTurnRequest(
            request_id=str(uuid.uuid4()),
            conversation_id=conversation_id,
            text=question,
            options=TurnOptions(model=model) if model else None,
        )
        citations: list[Citation] = []
        chat = ChatServiceStub(channel, metadata=metadata)
        whole = False
        async for response in chat.start_turn(turn, timeout=_TURN_TIMEOUT_S):
            event = response.event
            if event is None:
                continue
            if event.sources:
                citations = event.sources.citations
                if event.sources.degraded:
                    errors.print("The documents can't be searched just now; the answer comes without them.")
            elif event.text_delta:
                sys.stdout.write(printable(event.text_delta.text))
                sys.stdout.flush()
            elif event.completed:
                whole = True
        print()
    _print_sources(citations)
    console.print(f"To go on: parley ask --conversation {conversation_id} ...", style="dim", highlight=False)
    return 0 if whole else 1


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
        page = f", page {citation.page}" if citation.page else ""
        headings = f" ({' > '.join(citation.headings)})" if citation.headings else ""
        print(printable(f"[{citation.number}] {citation.title}{page}{headings}"))
