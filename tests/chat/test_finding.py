"""What a turn searches for: its question, and with it what was said before."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import pytest

from services.chat.turn import Asker, Follows, Message, Passage, Role, Sources
from services.shared.errors import Reason, Unavailable
from tests.chat.conftest import Chat, a_passage, a_question, an_asker, until
from tests.chat.fakes import FakeDocuments

HISTORY = [
    Message(Role.USER, "How long is the notice in Paris?"),
    Message(Role.ASSISTANT, "Three months."),
    Message(Role.USER, "And in Rome?"),
    Message(Role.ASSISTANT, "Two."),
]
ASKED_BEFORE = ("How long is the notice in Paris?", "And in Rome?")


class StillDocuments(FakeDocuments):
    """A search without history gets no answer; `given_up` counts those that nobody waits for any more."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.given_up = 0

    async def search(self, asker: Asker, text: str, history: Sequence[str]) -> Sequence[Passage]:
        found = await super().search(asker, text, history)
        self.begun.set()
        if not history:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        return found


async def test_a_first_question_is_searched_for_alone_and_once(chat: Chat) -> None:
    await chat.ask(an_asker(), a_question("Where is Berlin?"))
    assert chat.documents.searched == [("Where is Berlin?", ())]


async def test_a_follow_up_is_searched_for_with_what_the_asker_said_before(chat: Chat) -> None:
    chat.conversations.history = HISTORY
    passage = a_passage()
    chat.documents.passages = [passage]
    entries = await chat.ask(an_asker(), a_question("And in Berlin?"))
    assert chat.documents.searched[-1] == ("And in Berlin?", ASKED_BEFORE)
    assert entries[1].event == Sources((passage,), degraded=False)


async def test_the_search_that_knew_no_history_is_given_up(chat: Chat) -> None:
    chat.conversations.history = HISTORY
    still = StillDocuments()
    chat.conversations.open_now = still.begun
    chat.change(documents=still)
    entries = await chat.ask(an_asker(), a_question("And in Berlin?"))
    assert entries[1].event == Sources((), degraded=False)
    assert still.given_up == 1


async def test_a_question_that_names_the_turn_before_is_searched_for_once(chat: Chat) -> None:
    chat.conversations.history = HISTORY
    await chat.ask(an_asker(), a_question("And in Berlin?", place=Follows(uuid4())))
    assert chat.documents.searched == [("And in Berlin?", ASKED_BEFORE)]


async def test_a_question_that_names_the_turn_before_waits_for_no_history_in_vain(chat: Chat) -> None:
    chat.conversations.open_now = asyncio.Event()
    async with chat.reading(an_asker(), a_question("And in Berlin?", place=Follows(uuid4()))) as turn:
        await until(lambda: chat.conversations.calls)
        assert chat.documents.searched == []
        chat.conversations.open_now.set()
        assert len([entry async for entry in turn.follow()]) >= 5
    assert chat.documents.searched == [("And in Berlin?", ())]


async def test_only_the_last_messages_are_taken(chat: Chat) -> None:
    chat.conversations.history = [Message(Role.USER, f"Question {number}?") for number in range(9)]
    await chat.ask(an_asker(), a_question("And now?"))
    _, history = chat.documents.searched[-1]
    assert 1 <= len(history) <= 8
    assert history[-1] == "Question 8?"


@pytest.mark.parametrize("history", [[], HISTORY], ids=["alone", "follow-up"])
async def test_without_knowledge_the_turn_goes_on_without_sources(chat: Chat, history: list[Message]) -> None:
    chat.conversations.history = history
    chat.documents.refusal = Unavailable(Reason.SEARCH_UNAVAILABLE, "down")
    entries = await chat.ask(an_asker(), a_question())
    assert entries[1].event == Sources((), degraded=True)
    assert chat.conversations.answers


async def test_a_follow_up_that_asks_not_to_search_does_not(chat: Chat) -> None:
    chat.conversations.history = HISTORY
    await chat.ask(an_asker(), a_question(search=False))
    assert chat.documents.calls == 0
