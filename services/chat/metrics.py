"""What operators see of turns, in Prometheus."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from services.chat.turn import End, Usage

_FIRST_WORDS_SECONDS = Histogram(
    "parley_turn_first_words_seconds",
    "Time from a question to the first words of its answer.",
    ["model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 10, 30, 60),
)
_TURNS = Counter("parley_turns", "Turns that ended.", ["model", "state"])
_TOKENS = Counter("parley_turn_tokens", "Tokens read (prompt) and written (completion).", ["model", "kind"])
_OPEN_TURNS = Gauge("parley_open_turns", "Turns that run or are read in this process.")


class PrometheusTurnMeter:
    """Implements answer.TurnMeter."""

    def first_words(self, model: str, seconds: float) -> None:
        _FIRST_WORDS_SECONDS.labels(model).observe(seconds)

    def ended(self, model: str, end: End, usage: Usage) -> None:
        _TURNS.labels(model, type(end).__name__.lower()).inc()
        _TOKENS.labels(model, "prompt").inc(usage.prompt_tokens)
        _TOKENS.labels(model, "completion").inc(usage.completion_tokens)


def show_open_turns(count: Callable[[], float]) -> None:
    """Let the gauge of open turns ask `count` whenever it is read."""
    _OPEN_TURNS.set_function(count)
