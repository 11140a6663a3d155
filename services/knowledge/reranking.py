"""A second look at the best of what was found: a model that reads question and passage together.

It is a stage of its own that may be missing: without a model, and when the model fails or takes longer than a person
should wait for it, the order stays as it was.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from services.knowledge.passages import Passage
from services.shared.errors import Unavailable

BEST = 20
"""Passages that are read again. More cost the model's time and seldom come first."""

_log = logging.getLogger("parley.knowledge")


class Read(Protocol):
    """What was found."""

    @property
    def passage(self) -> Passage: ...


Found = TypeVar("Found", bound=Read)


class Scorer(Protocol):
    """The model."""

    async def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """How well each text answers the query: the more the better, nothing else is said of it. Raises Unavailable."""


class Reranking:
    """Orders the first BEST of what was found anew. `count` is told what became of each try: "done" or "skipped"."""

    def __init__(self, scorer: Scorer, timeout_s: float, count: Callable[[str], None]) -> None:
        self._scorer = scorer
        self._timeout_s = timeout_s
        self._count = count

    async def __call__(self, query: str, found: Sequence[Found]) -> Sequence[Found]:
        """The same passages, best first."""
        best, rest = found[:BEST], found[BEST:]
        if len(best) < 2:
            return found
        try:
            async with asyncio.timeout(self._timeout_s):
                scores = await self._scorer.scores(query, [one.passage.searchable_text for one in best])
        except (Unavailable, TimeoutError) as error:
            self._count("skipped")
            _log.warning("search goes on without the rerank model: %s", error or "it took too long")
            return found
        self._count("done")
        places = sorted(range(len(best)), key=lambda place: -scores[place])
        return [*(best[place] for place in places), *rest]
