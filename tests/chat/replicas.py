"""Replicas of chat on fakes, and clients that read one turn at them whatever happens; what must hold in the end."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from services.chat.turn import (
    Asker,
    CancellationCause,
    Cancelled,
    Completed,
    Entry,
    Failed,
    Question,
    Rewound,
    Started,
    TextDelta,
    Usage,
)
from services.chat.wire import encode
from services.shared.errors import Reason, Refusal
from tests.chat.conftest import Chat, a_passage, a_question, an_asker
from tests.chat.fakes import EchoModel, Line

TEXT = "one two three four five six seven eight nine ten"


@dataclass
class Client:
    """Reads one turn, wherever it can, comes back after each broken call, and asks again after a failure."""

    asker: Asker
    question: Question
    shown: dict[int, bytes]  # to all clients, by number
    seen: list[Entry] = field(default_factory=list)
    turn_id: UUID | None = None
    sent_away: bool = False  # to the conversation, as the events are gone

    @property
    def last(self) -> int:
        return self.seen[-1].sequence if self.seen else 0

    @property
    def failed(self) -> bool:
        return bool(self.seen) and isinstance(self.seen[-1].event, Failed)

    @property
    def over(self) -> bool:
        return self.sent_away or (bool(self.seen) and isinstance(self.seen[-1].event, Completed | Cancelled))

    @property
    def had_the_end_alone(self) -> bool:
        """From the record, as the log was gone."""
        return [type(entry.event) for entry in self.seen[:2]] == [Started, Usage]

    def begin_again(self) -> None:
        self.seen, self.turn_id = [], None

    async def read(self, chat: Chat, most: int = 1000) -> None:
        """Until the turn is over, the call breaks, or so many entries came."""
        if self.turn_id:
            reading = await chat.turns.resume(self.asker, self.turn_id, self.last)
        else:
            reading = chat.turns.start(self.asker, self.question)
        try:
            async for entry in reading.follow():
                self.turn_id = reading.live.turn_id
                self.take(entry)
                most -= 1
                if not most:
                    return
        finally:
            reading.leave()

    def take(self, entry: Entry) -> None:
        gap = entry.sequence - self.last
        assert gap == 1 or (gap > 1 and isinstance(entry.event, Rewound)), f"{entry} after {self.last}"
        self.seen.append(entry)
        if isinstance(entry.event, Started):
            event = replace(entry.event, resumable=True)  # the log may have come back
            entry = replace(entry, encoded=encode(self.turn_id, 1, event))
        if not self.had_the_end_alone:
            assert self.shown.setdefault(entry.sequence, entry.encoded) == entry.encoded, f"another {entry}"


def text_of(entries: Sequence[Entry]) -> str:
    """As a client puts it together."""
    text = ""
    for entry in entries:
        match entry.event:
            case Rewound():
                text = ""
            case TextDelta(words):
                text += words
    return text


def check_whole(chat: Chat, client: Client) -> None:
    """One turn, ended once, with the answer that the client saw and the conversation has."""
    assert text_of(client.seen) == TEXT
    assert isinstance(client.seen[-1].event, Completed)
    assert [type(end) for _, end in chat.records.ended if not isinstance(end, Failed)] == [Completed]
    assert len(chat.conversations.questions) == 1
    ((turn_id, closed),) = chat.conversations.answers.items()
    assert (turn_id, closed.text, closed.whole) == (client.turn_id, TEXT, True)
    assert closed.message_id == client.seen[-1].event.message_id


def check_ended(chat: Chat, client: Client) -> None:
    """Whole, or stopped by the last replica that lived, with the words that the client saw.

    Where the log is gone, a client that comes late gets the end alone, and the words from the conversation.
    """
    if client.sent_away or client.had_the_end_alone:
        *_, (_, ended) = chat.records.ended
        (closed,) = chat.conversations.answers.values()
        assert closed.whole == isinstance(ended, Completed)
        assert closed.text == TEXT or not closed.whole
        return
    end = client.seen[-1].event
    if not (isinstance(end, Cancelled) and end.cause is CancellationCause.STOPPED):
        check_whole(chat, client)
        return
    assert [event for _, event in chat.records.ended if not isinstance(event, Failed)] == [end]
    assert TEXT.startswith(text_of(client.seen))
    assert [(closed.text, closed.whole) for closed in chat.conversations.answers.values()] == [
        (text_of(client.seen), False)
    ]


class Mesh:
    """Two replicas that beat, and clients that read one turn at either of them; time passes when nobody works.

    One client wants the answer. Another one only looks at it now and then.
    """

    def __init__(self, **changes: object) -> None:
        self.first = Chat(model=EchoModel(TEXT, pause_s=0.25, uneven=True), reader_grace_s=60, patience_s=60, **changes)
        self.first.documents.passages = [a_passage()]
        self.replicas: list[Chat] = []
        self.gone: list[Chat] = []  # kept, with all that they still wait for
        self._beating: dict[UUID, asyncio.Task[None]] = {}
        asker, question, shown = an_asker(), a_question(), dict[int, bytes]()
        self.client = Client(asker, question, shown)
        self.onlooker = Client(asker, question, shown)
        self._looks: list[asyncio.Task[None]] = []
        self._at = 0
        self.reading: asyncio.Task[None] | None = None
        self._run(self.first)
        self._run(self.first.other(reader_grace_s=60, patience_s=60))

    def _run(self, chat: Chat) -> None:
        self.replicas.append(chat)
        self._beating[chat.replica_id] = asyncio.create_task(chat.ownership.run())

    def replace(self, number: int) -> None:
        """A new process stands where one has gone."""
        gone = self.replicas.pop(number)
        self.gone.append(gone)
        self._beating.pop(gone.replica_id).cancel()
        self._run(gone.other(reader_grace_s=60, patience_s=60, line=Line()))
        if self.reading and self._at == number:
            self.reading.cancel()
        self._at = 0

    def kill(self, number: int) -> None:
        self.replicas[number].line.is_cut = True
        self.replace(number)

    async def drain(self, number: int) -> None:
        await self.replicas[number].ownership.drain(3)
        self.kill(number)

    def read(self, number: int) -> None:
        """Let the client read at a replica, instead of where it reads now."""
        if self.reading:
            self.reading.cancel()
        self._at = number
        self.reading = asyncio.create_task(self.client.read(self.replicas[number]))
        self.reading.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def read_on(self) -> None:
        """As a client does whose call has broken."""
        if self.reading is None or not self.reading.done():
            return
        error = None if self.reading.cancelled() else self.reading.exception()
        if error and not isinstance(error, Refusal):
            raise error
        if self.client.failed:
            self.client.begin_again()
        elif isinstance(error, Refusal) and error.reason is Reason.TURN_NOT_RESUMABLE:
            if isinstance(self.first.records.ended[-1][1], Failed):
                self.client.begin_again()
            else:
                self.client.sent_away = True
        if not self.client.over:
            self.read((self._at + 1) % len(self.replicas))

    def look(self, number: int, entries: int) -> None:
        """Let the onlooker read so many entries at a replica."""
        if self.client.turn_id and all(look.done() for look in self._looks):
            self.onlooker.turn_id = self.client.turn_id
            self._looks.append(asyncio.create_task(self.onlooker.read(self.replicas[number], entries)))
            self._looks[-1].add_done_callback(lambda task: task.cancelled() or task.exception())

    def check_looks(self) -> None:
        """Raise what an onlooker found wrong."""
        for look in self._looks:
            if look.done() and not look.cancelled() and not isinstance(look.exception(), Refusal | None):
                raise look.exception()

    async def pass_time(self, seconds: float) -> None:
        end_s = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(0.05)
            await self.read_on()
            self.check_looks()

    async def end(self) -> None:
        """Everything is well from now on: the client reads to the end."""
        self.first.log.down = self.first.records.down = False
        for chat in self.replicas:
            chat.model.dying = False
            chat.line.go_on.set()
        if self.reading is None:
            self.read(0)
        async with asyncio.timeout(50):
            while not self.client.over:
                await self.pass_time(0.1)
        await self.pass_time(2)
