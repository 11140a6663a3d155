"""Giving phrasings the vectors that they lack: written while the embedding model was away, or before it was another."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from services.knowledge.faqs.faq import Faq
from services.knowledge.search import Embedding, Vector
from services.shared.errors import Unavailable

_log = logging.getLogger("parley.knowledge")
_EVERY_S = 30.0
_TOGETHER = 50


class UnlearntFaqs(Protocol):
    """The record of the FAQs of all organisations."""

    async def unlearnt(self, limit: int) -> Sequence[Faq]:
        """Some whose phrasings have no vectors of the model."""

    async def learn(self, faq: Faq, vectors: Sequence[Vector]) -> None:
        """Keep the vectors, unless the FAQ has changed since it was read."""


async def learn(faqs: UnlearntFaqs, embedding: Embedding) -> None:
    """Once: all that lack vectors. Raises Unavailable."""
    while found := await faqs.unlearnt(_TOGETHER):
        for faq in found:
            await faqs.learn(faq, await embedding.embed(faq.wording.phrasings))


async def keep_learning(faqs: UnlearntFaqs, embedding: Embedding) -> None:
    """Now and then, until cancelled; replicas may learn the same at once."""
    while True:
        try:
            await learn(faqs, embedding)
        except Unavailable as error:
            _log.warning("phrasings wait for their vectors", extra={"facts": {"reason": error.reason}})
        await asyncio.sleep(_EVERY_S)
