"""How often a turn's words become an event: each word at once while few turns run, some together under load.

An event costs a replica the same whether it holds one word or ten, so the number of turns sets the interval: each gets
its share of the events that one process can pass on. The model is asked for it when it starts to speak; what a model
says more often, because it began in quieter times, is gathered before the log. Words go on in common ticks, so an
interval is a number of them: else a gap would be a tick longer than another.

Knobs: `events_per_s` leaves a processor about half free (docs/profile.md); words that come less often than every
`longest_s` look like jerks to a person.
"""

from dataclasses import dataclass

TICK_S = 0.02  # nobody sees less, and a shorter interval gathers next to nothing


@dataclass(frozen=True)
class Pace:
    """The interval between a turn's events."""

    events_per_s: float
    longest_s: float

    def interval_s(self, turns: int) -> float:
        """Seconds, for so many turns in this process; 0: each word at once."""
        interval_s = min(turns / self.events_per_s, self.longest_s)
        return round(interval_s / TICK_S) * TICK_S if interval_s >= TICK_S else 0.0
