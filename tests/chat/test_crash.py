"""The life of a turn with a crash at every step, and in any order of events.

`test_a_crash_at_any_step` kills the replica that runs a turn just before and just after each call that it makes to the
outside. The machine mixes crashes of replicas, losses of the log, outages and readers as hypothesis likes. Both judge
by what a reader saw, and by what the record and the conversation hold.
"""

import asyncio
import selectors
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

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
    Turn,
    Usage,
)
from services.chat.wire import encode
from services.shared.errors import Reason, Refusal
from tests.chat.conftest import Chat, a_passage, a_question, an_asker
from tests.chat.fakes import EchoModel, FakeTurnLog, FakeTurnRecords, Line

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

    def check_looks(self) -> None:
        """Raise what an onlooker found wrong."""
        for look in self._looks:
            if look.done() and not isinstance(look.exception(), Refusal | None):
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


def in_no_time(work: Coroutine[None, None, None]) -> None:
    """Run it in a loop of its own whose clock jumps to whatever is waited for."""
    loop = JumpingLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.finish()


class JumpingLoop(asyncio.SelectorEventLoop):
    """Nothing here waits for the world: when all sleep, it is the time at which the first one wakes."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(JumpingSelector(self._jump))

    def time(self) -> float:
        return self._now_s

    def _jump(self, seconds: float) -> None:
        self._now_s += seconds

    def finish(self) -> None:
        """Cancel what is left, and close."""
        while tasks := asyncio.all_tasks(self):  # what a dead replica still does may wait for ever again
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=0.01))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()


class JumpingSelector(selectors.SelectSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for ever"
        if timeout > 0:
            self._jump(timeout)
        return super().select(0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_step(when: str) -> None:
    meshes: list[Mesh] = []

    async def crash_at(step: int) -> bool:
        mesh = Mesh()
        meshes.append(mesh)
        await asyncio.sleep(0.5)  # both have beaten
        line = mesh.first.line
        line.cut_at = (line.steps + step, when)
        mesh.read(0)
        while not line.is_cut and not mesh.client.over:
            await asyncio.sleep(0.02)
        if line.is_cut:
            mesh.kill(0)
        await mesh.end()
        check_whole(mesh.first, mesh.client)
        return line.is_cut

    steps = 0

    async def crash_at_each() -> None:
        nonlocal steps
        while await crash_at(steps + 1):
            steps += 1

    in_no_time(crash_at_each())
    assert steps > 40


class TurnMachine(RuleBasedStateMachine):
    """Whatever happens to the mesh, the client sees one answer, without gap or repeat."""

    replicas = st.integers(0, 1)
    parts: Mapping[str, Callable[[], object]] = {}  # instead of good fakes

    def __init__(self) -> None:
        super().__init__()
        self.loop = JumpingLoop()
        self.run(self._begin())

    async def _begin(self) -> None:
        self.mesh = Mesh(**{name: make() for name, make in self.parts.items()})
        await asyncio.sleep(0.5)
        self.mesh.read(0)

    def run(self, work: Coroutine[None, None, None]) -> None:
        self.loop.run_until_complete(work)

    @rule(seconds=st.sampled_from([0.05, 0.3, 0.6, 1.5]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.mesh.pass_time(seconds))

    @rule(number=replicas)
    def a_replica_is_killed(self, number: int) -> None:
        self.run(self._call(self.mesh.kill, number))

    @rule(number=replicas)
    def a_replica_stands_still(self, number: int) -> None:
        self.mesh.replicas[number].line.go_on.clear()

    @rule(number=replicas)
    def a_replica_goes_on(self, number: int) -> None:
        self.mesh.replicas[number].line.go_on.set()

    @rule(number=replicas)
    def a_replica_is_stopped(self, number: int) -> None:
        if self.mesh.replicas[number].line.go_on.is_set():
            self.run(self.mesh.drain(number))

    @rule(number=replicas)
    def the_client_changes(self, number: int) -> None:
        if not self.mesh.client.over:
            self.run(self._call(self.mesh.read, number))

    @rule(down=st.booleans())
    def the_log_is_cut_off(self, down: bool) -> None:
        self.mesh.first.log.down = down

    @rule(down=st.booleans())
    def the_record_is_cut_off(self, down: bool) -> None:
        self.mesh.first.records.down = down

    @precondition(lambda self: not self.mesh.client.over)
    @rule(entries=st.integers(0, 12))
    def the_log_loses_its_end(self, entries: int) -> None:
        self.mesh.first.log.lose(entries)

    @rule(dying=st.booleans())
    def the_model_dies(self, dying: bool) -> None:
        self.mesh.first.model.dying = dying

    @rule(number=replicas, entries=st.sampled_from([1, 2, 5]))
    def the_onlooker_looks(self, number: int, entries: int) -> None:
        self.run(self._call(self.mesh.look, number, entries))

    @invariant()
    def there_is_one_turn(self) -> None:
        assert len(self.mesh.first.conversations.answers) <= 1
        assert len([end for _, end in self.mesh.first.records.ended if not isinstance(end, Failed)]) <= 1

    async def _call(self, work: Callable[..., None], *arguments: int) -> None:
        work(*arguments)

    def teardown(self) -> None:
        try:
            self.run(self.mesh.end())
            check_ended(self.mesh.first, self.mesh.client)
        finally:
            self.loop.finish()


PLAN = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_a_turn_survives_whatever_happens_in_any_order() -> None:
    run_state_machine_as_test(TurnMachine, settings=PLAN)


# Deliberate breaks, each of which the machine notices


class ForgetfulLog(FakeTurnLog):
    """Does not say that it may have lost something."""

    incarnation = "always the same"


class IdleRecords(FakeTurnRecords):
    """Gives nobody the turns of the dead."""

    def of(self, replica_id: UUID) -> "IdleRecords":
        return IdleRecords(self.record, replica_id)

    async def take_over(self, runs: Collection[UUID], limit: int) -> Sequence[Turn]:
        return []


@pytest.mark.parametrize("broken", [{"log": ForgetfulLog}, {"records": IdleRecords}], ids=["log", "records"])
def test_the_machine_notices(broken: dict[str, Callable[[], object]]) -> None:
    class BrokenMachine(TurnMachine):
        parts = broken

    with pytest.raises((AssertionError, TimeoutError)):
        run_state_machine_as_test(BrokenMachine, settings=PLAN)
