"""`parley rate`: says what the last answer was worth."""

from parley_sdk.parley.chat.v1 import ChatServiceStub, RateTurnRequest, TurnRating
from stack.client import Verdict
from stack.client.account import signed_in
from stack.client.asking import printable
from stack.client.conversation import last_asked
from stack.client.edge import CALL_TIMEOUT_S, Edge

_RATINGS = {Verdict.GOOD: TurnRating.GOOD, Verdict.BAD: TurnRating.BAD, Verdict.NONE: TurnRating.UNSPECIFIED}


async def rate(edge: Edge, verdict: Verdict, reason: str, conversation_id: str | None) -> int:
    """Rate the last answer of a conversation, or of the one that changed last."""
    asked = await last_asked(edge, conversation_id)
    async with signed_in(edge) as (channel, metadata):
        request = RateTurnRequest(turn_id=asked.turn_id, rating=_RATINGS[verdict], reason=reason)
        await ChatServiceStub(channel, metadata=metadata).rate_turn(request, timeout=CALL_TIMEOUT_S)
    print(printable(f"Rated {verdict}: the answer to {asked.text.partition(chr(10))[0]}"))
    return 0
