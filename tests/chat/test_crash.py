"""The life of a turn with a crash, or a pause, at every step, and in any order of events.

Each story of a turn is told once for each call to the outside that one replica makes in it, just before and just after
the call: there the replica is killed, or stands still until another one has done its work. The machine mixes crashes,
pauses, losses of the log, outages and readers as hypothesis likes. All judge by what readers saw, and by what the
record and the conversation hold.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from services.chat.turn import Entry, Failed, Turn
from tests.chat.fakes import FakeTurnLog, FakeTurnRecords, Line
from tests.chat.jumping import JumpingLoop, in_no_time
from tests.chat.replicas import Mesh, check_ended, check_whole


async def passed(condition: Callable[[], object]) -> None:
    """Let time pass until the condition holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def a_first_run(mesh: Mesh) -> Line:
    return mesh.first.line


async def a_takeover(mesh: Mesh) -> Line:
    """After the first replica is gone."""
    mesh.read(0)
    await passed(lambda: mesh.client.last > 2)
    mesh.kill(0)
    mesh.read(1)
    return mesh.replicas[0].line


async def a_second_try(mesh: Mesh) -> Line:
    """After a first one without a model, in which an onlooker still stands."""
    mesh.first.model.dying = True
    mesh.read(0)
    await passed(lambda: mesh.client.last)
    mesh.look(1, 2)
    await passed(lambda: mesh.client.failed)
    mesh.first.model.dying = False
    mesh.client.begin_again()
    return mesh.first.line


Story = Callable[[Mesh], Awaitable[Line]]  # up to where it may be disturbed, and the line of who is disturbed
STORIES: dict[str, Story] = {"first run": a_first_run, "takeover": a_takeover, "second try": a_second_try}


async def disturbed(mesh: Mesh, story: Story, step: int, when: str, *, kill: bool) -> bool:
    """Tell a story with a disturbance at a step; False when there was no such step."""
    await asyncio.sleep(0.5)  # both have beaten
    line = await story(mesh)
    place = (line.steps + step, when)
    line.cut_at, line.pause_at = (place, None) if kill else (None, place)
    if mesh.reading is None or mesh.reading.done():
        mesh.read(0)
    number = next(number for number, chat in enumerate(mesh.replicas) if chat.line is line)
    while not (line.is_cut or mesh.client.over) and line.go_on.is_set():
        await mesh.pass_time(0.02)
    happened = line.is_cut or not line.go_on.is_set()
    if line.is_cut:
        mesh.kill(number)
    elif happened:
        mesh.read(1 - number)
        await mesh.pass_time(2.1)  # the other one is about to say the second half
    mesh.look(1, 1000)
    await mesh.end()
    check_whole(mesh.first, mesh.client)
    return happened


def disturbed_everywhere(story: str, when: str, *, kill: bool, **parts: Callable[[], object]) -> int:
    """The number of steps at which it was."""

    meshes: list[Mesh] = []  # kept, with all that their dead replicas still wait for

    async def happened_at(step: int) -> bool:
        meshes.append(Mesh(**{name: make() for name, make in parts.items()}))
        return await disturbed(meshes[-1], STORIES[story], step, when, kill=kill)

    async def everywhere() -> int:
        steps = 0
        while await happened_at(steps + 1):
            steps += 1
        return steps

    return in_no_time(everywhere())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("story", STORIES)
def test_a_crash_at_any_step(story: str, when: str) -> None:
    assert disturbed_everywhere(story, when, kill=True) > 20


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("story", STORIES)
def test_a_pause_at_any_step(story: str, when: str) -> None:
    assert disturbed_everywhere(story, when, kill=False) > 20


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

    @rule(number=replicas, lost=st.sampled_from([None, None, 1, 2, 12]))
    def a_replica_oversleeps(self, number: int, lost: int | None) -> None:
        """It wakes up when its lease is over, possibly to a log that was started anew."""
        line = self.mesh.replicas[number].line
        line.go_on.clear()
        self.run(self.mesh.pass_time(1.6))
        if lost is not None and not self.mesh.client.over:
            self.mesh.first.log.lose(lost)
        line.go_on.set()

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

    @rule(entries=st.integers(0, 12))
    def the_log_loses_its_end(self, entries: int) -> None:
        if not self.mesh.client.over:
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
    max_examples=300,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_a_turn_survives_whatever_happens_in_any_order() -> None:
    run_state_machine_as_test(TurnMachine, settings=PLAN)


# Deliberate breaks, each of which is noticed


class ForgetfulLog(FakeTurnLog):
    """Does not say that it may have lost something."""

    incarnation = "always the same"


class IdleRecords(FakeTurnRecords):
    """Gives nobody the turns of the dead."""

    def of(self, replica_id: UUID) -> "IdleRecords":
        return IdleRecords(self.record, replica_id)

    async def take_over(self, runs: Collection[UUID], limit: int) -> Sequence[Turn]:
        return []


class UnfencedLog(FakeTurnLog):
    """Takes any number from anybody."""

    async def append(
        self, turn_id: UUID, after: int, entries: Sequence[Entry], *, incarnation: str | None = None
    ) -> str | None:
        self._check()
        async with self._written:
            self.entries[turn_id] += entries
            self._written.notify_all()
        return self.incarnation


class ForgivingRecords(FakeTurnRecords):
    """Says to every run that the turn is still its own."""

    def of(self, replica_id: UUID) -> "ForgivingRecords":
        return ForgivingRecords(self.record, replica_id)

    async def mark_log(self, turn: Turn, incarnation: str | None) -> bool:
        await super().mark_log(turn, incarnation)
        return True


BROKEN = {
    "forgetful log": {"log": ForgetfulLog},
    "unfenced log": {"log": UnfencedLog},
    "idle records": {"records": IdleRecords},
    "forgiving records": {"records": ForgivingRecords},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_the_machine_notices(broken: dict[str, Callable[[], object]]) -> None:
    class BrokenMachine(TurnMachine):
        parts = broken

    with pytest.raises((AssertionError, TimeoutError)):
        run_state_machine_as_test(BrokenMachine, settings=PLAN)


def test_a_log_without_its_fence_is_noticed() -> None:
    with pytest.raises((AssertionError, TimeoutError)):
        disturbed_everywhere("first run", "before", kill=False, log=UnfencedLog)
