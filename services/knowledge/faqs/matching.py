"""Whether a FAQ answers a question: the phrasing most like it, if it is alike enough.

A wrong curated answer in the first place is worse than none, so ENOUGH is chosen for precision, on questions that a set
answers and on others that it does not (docs/retrieval.md). Where the embedding model knows the language, meanings are
compared; elsewhere little but the words, and those must be nearly all the same: further phrasings help there.

Each replica holds the phrasings of the organisations that ask in memory. Every search asks the record what has changed
since the revision that is held, so whatever was written before it is found, whichever replica took it; what is shown is
read from the record.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self
from uuid import UUID
from weakref import WeakValueDictionary

from services.knowledge.faqs.faq import Faq
from services.knowledge.fusion import ENGLISH, OTHER, lexical_weight
from services.knowledge.search import Embedding, FoundPassage, Vector
from services.knowledge.text import seen

ENOUGH = 0.80
"""How alike is alike enough, whatever the language."""
ENGLISH_SHARE, OTHER_SHARE = 0.15, 0.9
"""The weight of the terms, for questions in English and in scripts that the embedding model does not know. Half of what
it is among passages: two questions say the same in other words more often than a question and its answer."""
_HELD_PHRASINGS = 10_000
"""Of all organisations together, at some 3.5 kB each; an organisation that has more is held alone."""


@dataclass(frozen=True)
class Asked:
    """The phrasings of a FAQ, the question first, and their vectors (FP16, one after another), None while unknown."""

    faq_id: UUID
    phrasings: tuple[str, ...]
    vectors: bytes | None


@dataclass(frozen=True)
class News:
    """What has changed since a revision: all FAQs that are new or different, and how many there are by now."""

    revision: int
    total: int
    changed: tuple[Asked, ...]


@dataclass(frozen=True)
class FoundFaq:
    """A FAQ among what a search found."""

    id: UUID
    question: str
    answer: str


class MatchedFaqs(Protocol):
    """The record of the FAQs."""

    async def since(self, tenant_id: UUID, revision: int) -> News:
        """Revision 0 has nothing in it. Raises Unavailable."""

    async def find(self, tenant_id: UUID, faq_id: UUID) -> Faq | None:
        """Raises Unavailable."""


class Phrasings(Protocol):
    """Those of one organisation; see phrasings.PhrasingTable."""

    def __len__(self) -> int: ...

    @property
    def phrasings(self) -> int: ...

    def with_changes(self, changed: Sequence[Asked]) -> Self: ...

    def same(self, question: str) -> UUID | None: ...

    def closest(self, question: str, vector: Vector, weight: float) -> tuple[UUID, float] | None: ...


class Matching:
    """Finds the FAQ that goes before what a search finds."""

    def __init__(self, faqs: MatchedFaqs, embedding: Embedding, nothing: Phrasings) -> None:
        """`nothing`: the phrasings of an organisation without FAQs."""
        self._faqs = faqs
        self._embedding = embedding
        self._nothing = nothing
        self._held: OrderedDict[UUID, tuple[int, Phrasings]] = OrderedDict()
        self._renewing: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def before(
        self, tenant_id: UUID, query: str, limit: int, passages: Awaitable[Sequence[FoundPassage]]
    ) -> Sequence[FoundFaq | FoundPassage]:
        """At most `limit`: the FAQ that answers the query, if there is one, and the passages, found meanwhile.

        Raises Unavailable.
        """
        faq, found = await asyncio.gather(self.answering(tenant_id, query), passages)
        first: list[FoundFaq | FoundPassage] = [faq] if faq else []
        return [*first, *found][:limit]

    async def answering(self, tenant_id: UUID, query: str) -> FoundFaq | None:
        """The FAQ that answers the query, if there is one. Raises Unavailable."""
        phrasings = await self._current(tenant_id)
        if not len(phrasings) or not (question := seen(query)):
            return None
        if (faq_id := phrasings.same(question)) is None:
            [vector] = await self._embedding.embed([question])
            closest = phrasings.closest(question, vector, weight_of_terms(question))
            if closest is None or closest[1] < ENOUGH:
                return None
            faq_id, _ = closest
        faq = await self._faqs.find(tenant_id, faq_id)
        return FoundFaq(faq.id, faq.wording.question, faq.wording.answer) if faq else None

    async def _current(self, tenant_id: UUID) -> Phrasings:
        """What the record holds now."""
        revision, phrasings = self._held.get(tenant_id, (0, self._nothing))
        if (await self._faqs.since(tenant_id, revision)).revision != revision:
            # One search at a time works in what has changed; the others wait for it.
            async with self._renewing.setdefault(tenant_id, asyncio.Lock()):
                phrasings = await self._renewed(tenant_id)
        if tenant_id in self._held:
            self._held.move_to_end(tenant_id)
        return phrasings

    async def _renewed(self, tenant_id: UUID) -> Phrasings:
        revision, phrasings = self._held.get(tenant_id, (0, self._nothing))
        news = await self._faqs.since(tenant_id, revision)
        # Terms take up to half a millisecond a phrasing: not on the loop that answers searches.
        phrasings = await asyncio.to_thread(phrasings.with_changes, news.changed)
        if len(phrasings) != news.total:  # some were deleted
            news = await self._faqs.since(tenant_id, 0)
            phrasings = await asyncio.to_thread(self._nothing.with_changes, news.changed)
        self._held[tenant_id] = (news.revision, phrasings)
        self._held.move_to_end(tenant_id)
        while len(self._held) > 1 and sum(held.phrasings for _, held in self._held.values()) > _HELD_PHRASINGS:
            self._held.popitem(last=False)
        return phrasings


def weight_of_terms(question: str) -> float:
    """Between ENGLISH_SHARE and OTHER_SHARE, by how well the embedding model knows the language."""
    unknown = (lexical_weight(question) - ENGLISH) / (OTHER - ENGLISH)
    return ENGLISH_SHARE + unknown * (OTHER_SHARE - ENGLISH_SHARE)
