"""Each check of the verdict fails when what it looks for is there, and only then: shown on an edge that is wrong on
purpose, and with clients that are.
"""

import pytest

from tests.chaos.failpoints import SERVICE_OF
from tests.chaos.fake_edge import FakeEdge, serving
from tests.chaos.people import MANNERS, Size
from tests.chaos.reader import Patience
from tests.chaos.report import passed, table
from tests.chaos.run import Load, Outcome, run
from tests.chaos.saboteur import KILLS, LINKS, PAUSES, Fault, Moments, Struck, plan
from tests.chaos.seen import Break
from tests.chaos.test_short import SHORT_KILLS
from tests.chaos.verdict import (
    AGREE,
    CHARGED,
    DOUBLED,
    LOST,
    OVERWRITTEN,
    PLACE,
    RUNNING,
    SEQUENCE,
    TEXT,
    UNASKED,
    UNDEFINED,
    UNRESUMED,
    Violation,
    judge,
)

PATIENCE = Patience(0.3, 0.3, 0.3, in_all_s=0.6, pauses_s=(0.01,), refused_s=0.01)


SIZE = Size((15, 30), (10, 40), 0.0, (0.0, 0.05), (0.0, 0.01))
EACH = dict.fromkeys(MANNERS, 1)
"""Every manner comes in every few turns: what a flaw needs to show never depends on luck."""


async def outcome_of(edge: FakeEdge, *client_flaws: str, turns: int = 2 * len(EACH)) -> tuple[Outcome, list[Violation]]:
    load = Load(turns, 6, 1, SIZE, PATIENCE, frozenset(client_flaws), manners=EACH)
    async with serving(edge, load.users) as users:
        outcome = await run(users, load, Moments(), None, settle_s=0.2)
    return outcome, judge(outcome.stories, outcome.record)


async def test_an_edge_that_only_breaks_off_streams_passes() -> None:
    outcome, violations = await outcome_of(FakeEdge(failures=0.1), turns=60)
    assert not violations, table(outcome, violations)
    assert not outcome.unfinished
    streams = [stream for story in outcome.stories for stream in story.streams]
    assert any(stream.breaks for stream in streams)
    assert any(stream.restarts for stream in streams)
    assert any(step.kind == "rewound" for stream in streams for step in stream.steps)
    assert {story.manner for story in outcome.stories} == {*MANNERS, "edited"}
    assert {end.end.WhichOneof("event") for end in streams if end.end} == {"completed", "cancelled"}


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        ("the question is lost", LOST),
        ("the answer is lost", LOST),
        ("the question stands twice", DOUBLED),
        ("two answers", DOUBLED),
        ("a copy makes a second turn", DOUBLED),
        ("a sibling is made twice", DOUBLED),
        ("a question is overwritten", OVERWRITTEN),
        ("an answer is overwritten", OVERWRITTEN),
        ("a replacement follows", PLACE),
        ("the place is not heeded", PLACE),
        ("siblings are not told", PLACE),
        ("resume skips", SEQUENCE),
        ("resume repeats", SEQUENCE),
        ("a number is left out", SEQUENCE),
        ("a reader is told otherwise", AGREE),
        ("a retry numbers anew", AGREE),
        ("a word is wrong", TEXT),
        ("the saved answer lacks a word", TEXT),
        ("resume is refused", UNRESUMED),
        ("resume is silent", UNRESUMED),
        ("cancel leaves it running", UNRESUMED),
        ("stopped for no reason", UNASKED),
        ("the turn hangs", RUNNING),
        ("charged twice", CHARGED),
    ],
)
async def test_a_wrong_edge_is_found_out(flaw: str, check: str) -> None:
    _, violations = await outcome_of(FakeEdge(flaw, failures=0.1))
    assert check in {violation.check for violation in violations}, flaw


@pytest.mark.parametrize(
    ("flaw", "check"), [("drop", SEQUENCE), ("repeat", SEQUENCE), ("misread", TEXT), ("lazy", UNRESUMED)]
)
async def test_a_wrong_client_is_found_out(flaw: str, check: str) -> None:
    _, violations = await outcome_of(FakeEdge(), flaw)
    assert check in {violation.check for violation in violations}, flaw


async def test_a_failure_without_a_reason_is_found_out() -> None:
    outcome, _ = await outcome_of(FakeEdge())
    stream = outcome.stories[0].streams[0]
    stream.undefined.append("INTERNAL: it fell over")
    assert [violation.check for violation in judge(outcome.stories, outcome.record)] == [UNDEFINED]


async def test_a_slow_recovery_fails_the_run() -> None:
    outcome, violations = await outcome_of(FakeEdge(breaks=0.0))
    outcome.journal.append(Struck(Fault("kill", "chat-1", 0.0, 0.0), at_s=100.0, over_s=103.0))
    stream = outcome.stories[0].streams[0]
    stream.breaks.append(Break(since_s=99.9, why="killed", over_s=101.0, noticed_s=100.1))
    assert passed(outcome, violations)
    stream.breaks.append(Break(since_s=99.9, why="killed", over_s=103.0, noticed_s=100.1))
    assert not passed(outcome, violations)
    outcome.journal.append(Struck(Fault("pause", "chat-2", 1.5, 0.0), at_s=100.5, over_s=102.0))
    assert not passed(outcome, violations)
    outcome.journal.append(Struck(Fault("cut", "edge", 1.5, 0.0), at_s=100.5, over_s=102.0))
    assert passed(outcome, violations)


async def test_what_the_harness_could_not_finish_fails_the_run() -> None:
    outcome, violations = await outcome_of(FakeEdge())
    assert passed(outcome, violations)
    outcome.unfinished.append("user 1 did not finish")
    assert not passed(outcome, violations)


def test_the_plan_comes_from_the_seed_alone() -> None:
    assert plan(7, 300, 1.0) == plan(7, 300, 1.0)
    assert plan(7, 300, 1.0) != plan(8, 300, 1.0)
    assert sum(fault.kind == "kill" for fault in plan(7, 300, 1.0)) == 300


@pytest.mark.parametrize("seed", range(20))
def test_even_a_short_plan_leaves_no_fault_out(seed: int) -> None:
    faults = plan(seed, SHORT_KILLS, 1.0)
    assert {fault.target for fault in faults if fault.kind == "kill"} >= set(KILLS)
    assert {fault.point for fault in faults if fault.point} == set(SERVICE_OF)
    assert {fault.target for fault in faults if fault.kind == "pause"} == set(PAUSES)
    assert {fault.target for fault in faults if fault.kind in ("cut", "freeze")} == set(LINKS)
