"""A question that says too little alone is searched for with what was said before it."""

from typing import Any

import grpc

from parley.chat.v1.chat_service_pb2 import TurnOptions
from parley.session.v1.session_pb2 import Citation
from tests.mesh.running import User, put_in
from tests.mesh.test_turns import events_of, new_conversation, question

TOWNS = ("Paris", "Berlin", "Rome", "Oslo", "Bern")
TOPICS = (
    ("notice period", "is {} months, to be given in writing"),
    ("garage", "costs {} euros a month and closes at eight"),
    ("lunch", "is served from {} o'clock on the second floor"),
    ("training", "takes {} weeks in the first year"),
    ("office dog", "is {} years old and sleeps under the stairs"),
)


async def cited(edge: grpc.aio.Channel, user: User, conversation_id: str, text: str) -> list[Citation]:
    asked = question(conversation_id, text, options=TurnOptions(model="echo", search=True))
    events: list[Any] = await events_of(edge, user, asked)
    [sources] = [event.sources for event in events if event.WhichOneof("event") == "sources"]
    assert not sources.degraded
    return list(sources.citations)


async def test_a_follow_up_finds_what_the_conversation_is_about(edge: grpc.aio.Channel, user: User) -> None:
    for number, town in enumerate(TOWNS):
        for topic, says in TOPICS:
            await put_in(edge, user, f"In {town} the {topic} {says.format(number + 2)}.")
    conversation_id = await new_conversation(edge, user)
    first, *_ = await cited(edge, user, conversation_id, "How long is the notice period in Paris?")
    assert first.snippet == "In Paris the notice period is 2 months, to be given in writing."
    second, *_ = await cited(edge, user, conversation_id, "And in Berlin?")
    assert second.snippet == "In Berlin the notice period is 3 months, to be given in writing."
    third, *_ = await cited(edge, user, conversation_id, "How old is the office dog in Oslo?")
    assert third.snippet == "In Oslo the office dog is 5 years old and sleeps under the stairs."
