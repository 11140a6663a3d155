"""The table of a run, and how long interruptions lasted."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from parley.chat.v1.turn_pb2 import TurnState
from parley.errors.v1.error_reason_pb2 import ErrorReason
from tests.chaos.run import Outcome
from tests.chaos.saboteur import Fault, Struck
from tests.chaos.seen import Break
from tests.chaos.verdict import CHECKS, Violation

RECOVERY_GOAL_S = 2.0
_SHOWN = 15
_LONGEST = 8
_AFTERMATH_S = 0.5


SEVERAL, NONE = "several faults at once", "no fault"


def recoveries(outcome: Outcome) -> dict[str, list[float]]:
    """Seconds from the last event before a break to the first one after it, by the fault that lay between."""
    found: dict[str, list[float]] = defaultdict(list)
    for interruption in _breaks(outcome):
        causes = faults_in(interruption, outcome.journal)
        cause = SEVERAL if len(causes) > 1 else f"{causes[0].kind} {causes[0].target}" if causes else NONE
        found[cause].append(interruption.lasted_s)
    return found


def _breaks(outcome: Outcome) -> list[Break]:
    streams = [stream for story in outcome.stories for stream in story.streams]
    return [found for stream in streams for found in stream.breaks if found.over_s is not None]


def faults_in(interruption: Break, journal: Sequence[Struck]) -> list[Fault]:
    """Those that were not over, or not for long, when the stream stood still; and began before it went on."""
    return [
        struck.fault
        for struck in journal
        if struck.at_s <= (interruption.over_s or 0.0)
        and (struck.over_s or float("inf")) + _AFTERMATH_S >= interruption.since_s
    ]


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def ended(outcome: Outcome) -> Counter[str]:
    """Turns by the end that the record tells."""
    return Counter(
        TurnState.Name(turn.state).removeprefix("TURN_STATE_").lower() for turn in outcome.record.turns.values()
    )


def _reasons(outcome: Outcome) -> Counter[str]:
    return Counter(
        ErrorReason.Name(turn.failure.reason).removeprefix("ERROR_REASON_")
        for turn in outcome.record.turns.values()
        if turn.state == TurnState.TURN_STATE_FAILED
    )


def recovery_s(outcome: Outcome) -> float:
    """p95 where a replica of chat was killed and nothing else was broken meanwhile."""
    found = recoveries(outcome)
    return percentile([value for cause in found if cause.startswith("kill chat") for value in found[cause]], 0.95)


def passed(outcome: Outcome, violations: Sequence[Violation]) -> bool:
    return not violations and not outcome.unfinished and recovery_s(outcome) <= RECOVERY_GOAL_S


def table(outcome: Outcome, violations: Sequence[Violation]) -> str:
    streams = [stream for story in outcome.stories for stream in story.streams]
    broken = [stream for stream in streams if stream.breaks]
    faults = Counter(struck.fault.kind for struck in outcome.journal)
    manners = Counter(story.manner for story in outcome.stories)
    steps = sum(len(stream.steps) for stream in streams)
    ends = Counter(
        stream.end.WhichOneof("event") if stream.end else "by the record" if stream.settled else "none"
        for stream in streams
    )
    freed = [
        stream.end.cancelled.freed_after_ms for stream in streams if stream.end and stream.end.HasField("cancelled")
    ]
    lines = [
        f"{len(outcome.stories)} turns ({_counts(manners)}) in {outcome.took_s:.0f} s; in the record: "
        f"{_counts(ended(outcome))}",
        f"{len(streams)} streams, {steps} events, {sum(story.tokens for story in outcome.stories)} words; "
        f"ends: {_counts(ends)}",
        f"faults: {_counts(faults)}",
        f"{len(broken)} streams were interrupted {sum(len(stream.breaks) for stream in broken)} times; "
        f"{sum(step.kind == 'rewound' for stream in streams for step in stream.steps)} rewound, "
        f"{sum(stream.restarts for stream in streams)} asked again before a word",
    ]
    if reasons := _reasons(outcome):
        lines.append(f"turns failed for: {_counts(reasons)}")
    if freed:
        lines.append(f"slot free after a cancel: p50 {percentile(freed, 0.5)} ms, p95 {percentile(freed, 0.95)} ms")
    lines.append("")
    lines.append(f"  {'from the last event to the next':<34}{'breaks':>8}{'p50 s':>8}{'p95 s':>8}{'max s':>8}")
    found = recoveries(outcome)
    for cause in sorted(found, key=lambda cause: -len(found[cause])):
        lines.append(_recovery(cause, found[cause]))
    lines.append(_recovery("all", [value for values in found.values() for value in values]))
    lines.append("  the longest:")
    for interruption in sorted(_breaks(outcome), key=lambda interruption: -interruption.lasted_s)[:_LONGEST]:
        causes = ", ".join(map(str, faults_in(interruption, outcome.journal))) or NONE
        lines.append(f"    {interruption.lasted_s:.2f} s ({interruption.why[:60]}): {causes}")
    lines.append("")
    counts = Counter(violation.check for violation in violations)
    for check in CHECKS:
        lines.append(f"  {check:<50}{counts[check]:>6}")
    lines.append(
        f"  {'recovery p95, kill -9 of a chat replica alone, s':<50}{recovery_s(outcome):>6.2f}"
        f"   (goal {RECOVERY_GOAL_S:g})"
    )
    lines += [f"  not finished: {words}" for words in outcome.unfinished]
    lines += [f"  {violation}" for violation in violations[:_SHOWN]]
    if len(violations) > _SHOWN:
        lines.append(f"  ... and {len(violations) - _SHOWN} more")
    return "\n".join(lines)


def _recovery(name: str, values: Sequence[float]) -> str:
    p50_s, p95_s, max_s = percentile(values, 0.5), percentile(values, 0.95), max(values, default=0.0)
    return f"  {name:<34}{len(values):>8}{p50_s:>8.2f}{p95_s:>8.2f}{max_s:>8.2f}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"
