"""What terms are worth in an organisation, and when that is found out anew."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from services.knowledge.lexical import dimension
from services.knowledge.passages import Passage
from services.knowledge.vocabulary import SAMPLE, Vocabulary
from services.shared.errors import Reason, Unavailable


class Record:
    """Implements PassageSample: each organisation has the same texts."""

    def __init__(self) -> None:
        self.texts = ["all cats"] * 3
        self.asked: list[UUID] = []
        self.down = False
        self.answered = asyncio.Event()

    async def sample(self, tenant_id: UUID, limit: int) -> Sequence[Passage]:
        self.asked.append(tenant_id)
        self.answered.set()
        if self.down:
            raise Unavailable(Reason.RECORD_UNAVAILABLE, "down")
        return [Passage(position, text) for position, text in enumerate(self.texts[:limit])]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_rarity_is_read_once_for_many_searches() -> None:
    record, tenant_id = Record(), uuid4()
    vocabulary = Vocabulary(record, Clock())
    found = await asyncio.gather(*(vocabulary.rarity(tenant_id) for _ in range(5)))
    assert record.asked == [tenant_id]
    assert {known.passages for known in found} == {3}
    assert found[0].containing == {dimension("cat"): 3}


async def test_rarity_is_renewed_behind_the_scenes_the_later_the_more_there_is() -> None:
    record, clock, tenant_id = Record(), Clock(), uuid4()
    vocabulary = Vocabulary(record, clock)
    await vocabulary.rarity(tenant_id)
    record.texts = ["all dogs"] * 2 * SAMPLE
    clock.now_s = 3.0
    assert (await vocabulary.rarity(tenant_id)).passages == 3
    assert len(record.asked) == 1
    clock.now_s = 5.0
    assert (await vocabulary.rarity(tenant_id)).passages == 3  # a search does not wait for it
    async with asyncio.timeout(10):
        while (await vocabulary.rarity(tenant_id)).passages != SAMPLE:
            await asyncio.sleep(0)
    clock.now_s = 5.0 + SAMPLE
    await vocabulary.rarity(tenant_id)
    assert len(record.asked) == 2


async def test_what_cannot_be_read_refuses_the_first_search_and_no_later_one() -> None:
    record, clock, tenant_id = Record(), Clock(), uuid4()
    vocabulary = Vocabulary(record, clock)
    record.down = True
    with pytest.raises(Unavailable):
        await vocabulary.rarity(tenant_id)
    record.down = False
    assert (await vocabulary.rarity(tenant_id)).passages == 3
    record.down, clock.now_s = True, 1000.0
    record.answered.clear()
    assert (await vocabulary.rarity(tenant_id)).passages == 3
    await record.answered.wait()
    assert (await vocabulary.rarity(tenant_id)).passages == 3


async def test_organisations_share_nothing_and_the_least_used_is_forgotten() -> None:
    record = Record()
    vocabulary = Vocabulary(record, Clock())
    first = uuid4()
    await vocabulary.rarity(first)
    for _ in range(64):
        await vocabulary.rarity(uuid4())
    await vocabulary.rarity(first)
    assert len(set(record.asked)) == 65
    assert record.asked[-1] == first
