"""The table of a run, and how long interruptions lasted."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from parley.chat.v1.turn_pb2 import TurnState
from parley.errors.v1.error_reason_pb2 import ErrorReason
from tests.chaos.run import Outcome
from tests.chaos.saboteur import Struck
from tests.chaos.seen import Break, Story, Stream
from tests.chaos.verdict import CHECKS, Violation

RECOVERY_GOAL_S = 2.0
_SHOWN = 15
_LONGEST = 12
_AFTERMATH_S = 0.5


NONE = "no fault"


def breaks(outcome: Outcome) -> list[Break]:
    """All interruptions, of all streams, that had an end; the verdict asks for one of each."""
    return [found for _, stream in _streams(outcome) for found in stream.breaks if found.over_s is not None]


def _streams(outcome: Outcome) -> list[tuple[Story, Stream]]:
    return [(story, stream) for story in outcome.stories for stream in story.streams]


def faults_in(interruption: Break, journal: Sequence[Struck]) -> list[Struck]:
    """Those that were not over, or not for long, when the stream stood still; and began before it went on."""
    return [
        struck
        for struck in journal
        if struck.at_s <= (interruption.over_s or 0.0)
        and (struck.over_s or float("inf")) + _AFTERMATH_S >= interruption.since_s
    ]


def cause_of(interruption: Break, faults: Sequence[Struck]) -> str:
    """The fault that came last before the client noticed, by kind and service."""
    before = [struck for struck in faults if struck.at_s <= max(interruption.noticed_s, interruption.since_s)]
    return _kind_of(before[-1]) if before else NONE


def _kind_of(struck: Struck) -> str:
    return f"{struck.fault.kind} {struck.fault.target.rstrip('-12')}"


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


ALONE = {"edge", "envoy", "postgres", "triton"}
"""Without a second: while the saboteur holds one of these, nobody could go on."""


def held_s(interruption: Break, journal: Sequence[Struck]) -> float:
    """For how much of it the saboteur itself stopped a part, or cut a link, that has no second."""
    spans = sorted(
        (max(struck.at_s, interruption.since_s), min(struck.over_s or 0.0, interruption.over_s or 0.0))
        for struck in journal
        if struck.fault.kind != "kill" and struck.fault.target in ALONE
    )
    total_s, end_s = 0.0, 0.0
    for first_s, last_s in spans:
        total_s += max(0.0, last_s - max(first_s, end_s))
        end_s = max(end_s, last_s)
    return total_s


def recovery_s(outcome: Outcome, *, less_held: bool = False) -> float:
    """p95 over all interruptions, whatever caused them: from the last event before to the next one, or to the refusal
    by which the contract ends a turn."""
    return percentile(
        [each.lasted_s - (held_s(each, outcome.journal) if less_held else 0.0) for each in breaks(outcome)], 0.95
    )


def passed(outcome: Outcome, violations: Sequence[Violation]) -> bool:
    return not violations and not outcome.unfinished and recovery_s(outcome, less_held=True) <= RECOVERY_GOAL_S


def table(outcome: Outcome, violations: Sequence[Violation]) -> str:
    streams = [stream for story in outcome.stories for stream in story.streams]
    broken = [stream for stream in streams if stream.breaks]
    faults = Counter(struck.fault.kind for struck in outcome.journal)
    points = Counter(struck.fault.point for struck in outcome.journal if struck.fault.point)
    missed = Counter(struck.missed for struck in outcome.journal if struck.missed)
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
        f"processors {outcome.busy:.0%} busy, {outcome.busy_elsewhere:.0%} with other programs",
        f"faults: {_counts(faults)}",
        f"kills at failpoints: {_counts(points)}; not passed in time, so killed elsewhere: {_counts(missed)}",
        f"{len(broken)} streams were interrupted {sum(len(stream.breaks) for stream in broken)} times; "
        f"{sum(step.kind == 'rewound' for stream in streams for step in stream.steps)} rewound, "
        f"{sum(stream.restarts for stream in streams)} asked again before a word",
    ]
    if reasons := _reasons(outcome):
        lines.append(f"turns failed for: {_counts(reasons)}")
    if freed:
        lines.append(f"slot free after a cancel: p50 {percentile(freed, 0.5)} ms, p95 {percentile(freed, 0.95)} ms")
    lines += _recoveries(outcome)
    lines.append("")
    counts = Counter(violation.check for violation in violations)
    for check in CHECKS:
        lines.append(f"  {check:<50}{counts[check]:>6}")
    lines += [
        f"  {'recovery p95 of all interrupted streams, s':<50}{recovery_s(outcome):>6.2f}",
        f"  {'less what the saboteur held a part with no second':<50}{recovery_s(outcome, less_held=True):>6.2f}"
        f"   (goal {RECOVERY_GOAL_S:g})",
    ]
    lines += [f"  not finished: {words}" for words in outcome.unfinished]
    lines += [f"  {violation}" for violation in violations[:_SHOWN]]
    if len(violations) > _SHOWN:
        lines.append(f"  ... and {len(violations) - _SHOWN} more")
    return "\n".join(lines)


def _recoveries(outcome: Outcome) -> list[str]:
    """By what broke the stream, and among these where nothing else was broken meanwhile."""
    found: dict[str, list[float]] = defaultdict(list)
    alone: dict[str, list[float]] = defaultdict(list)
    for interruption in breaks(outcome):
        faults = faults_in(interruption, outcome.journal)
        cause = cause_of(interruption, faults)
        found[cause].append(interruption.lasted_s)
        if len(faults) <= 1:
            alone[cause].append(interruption.lasted_s)
    away: dict[str, list[float]] = defaultdict(list)
    for struck in outcome.journal:
        if struck.over_s:
            away[_kind_of(struck)].append(struck.over_s - struck.at_s)
    lines = [
        "",
        "  Recovery of a stream: from the last event before it broke to the next one, or to the refusal by which the",
        "  contract ends a turn; whatever it was that broke. By the fault that came last before the client noticed.",
        f"  {'':<22}{'recovery':>24}      {'with no other fault':>24}      {'the part itself':>24}",
        f"  {'what broke the stream':<22}" + "      ".join([f"{'n':>6}{'p50 s':>6}{'p95 s':>6}{'max':>6}"] * 3),
    ]
    for cause in sorted({*found, *away}, key=lambda cause: (-len(found[cause]), cause)):
        lines.append(f"  {cause:<22}" + "      ".join(_row(group[cause]) for group in (found, alone, away)))
    groups = (found, alone)
    lines.append(f"  {'all':<22}" + "      ".join(_row([v for values in g.values() for v in values]) for g in groups))
    waits = [wait for story in outcome.stories for stream in story.streams for wait in stream.waits if wait.over_s]
    if waits:
        lines.append(f"  {'refused: no model':<22}{_row([wait.lasted_s for wait in waits])}  until it answered")
    lines.append("  the longest, less what was held:")

    def net_s(interruption: Break) -> float:
        return interruption.lasted_s - held_s(interruption, outcome.journal)

    longest = [(each, story) for story, stream in _streams(outcome) for each in stream.breaks if each.over_s]
    for interruption, story in sorted(longest, key=lambda pair: -net_s(pair[0]))[:_LONGEST]:
        causes = ", ".join(_told(struck, interruption.since_s) for struck in faults_in(interruption, outcome.journal))
        turns = ", ".join(sorted(story.turn_ids)) or "no turn"
        took = f"{net_s(interruption):.2f} s of {interruption.lasted_s:.2f}"
        lines.append(f"    {took}: {interruption.told} ({story.user}, {turns})")
        lines.append(f"      {causes or NONE}")
    return lines


def _told(struck: Struck, since_s: float) -> str:
    over = f" to {struck.over_s - since_s:+.1f}" if struck.over_s else ""
    return f"{struck.fault}, {struck.at_s - since_s:+.1f}{over}"


def _row(values: Sequence[float]) -> str:
    if not values:
        return f"{'-':>6}{'':>18}"
    return f"{len(values):>6}{percentile(values, 0.5):>6.2f}{percentile(values, 0.95):>6.2f}{max(values):>6.2f}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"
