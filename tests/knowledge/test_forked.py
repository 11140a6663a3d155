"""Readers that are forked: what ends them, what they leave, and what becomes of the process that starts them."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import psutil
import pytest

from services.knowledge.forked import ForkedExtraction
from services.knowledge.indexing import Unreadable
from services.shared.errors import Reason
from tests.documents import pdf
from tests.knowledge.conftest import in_parts

MEMORY_BYTES = 1024 * 1024 * 1024
ENDLESS = b"# x\n" + b"* [a](b) `c`\n" * 280_000


@pytest.fixture(scope="module")
async def forked() -> AsyncIterator[ForkedExtraction]:
    async with ForkedExtraction(MEMORY_BYTES, 20, 60.0) as extraction:
        yield extraction


async def texts(forked: ForkedExtraction, content: bytes) -> Sequence[str]:
    async with forked.read(in_parts(content, 65_536)) as extracted:
        return [passage.text for passage in extracted.passages]


def starter(forked: ForkedExtraction) -> psutil.Process:
    assert forked._process
    return psutil.Process(forked._process.pid)


async def until_alone(process: psutil.Process) -> None:
    async with asyncio.timeout(10):
        while process.children():
            await asyncio.sleep(0.01)


async def test_many_files_at_once_are_read_each_by_itself(forked: ForkedExtraction) -> None:
    wanted = [f"The heron of pond {number}." for number in range(40)]
    found = await asyncio.gather(*(texts(forked, text.encode()) for text in wanted))
    assert found == [[text] for text in wanted]
    await until_alone(starter(forked))


async def test_a_file_that_breaks_its_reader_harms_no_other(forked: ForkedExtraction) -> None:
    broken = pdf(["a page"])[:200]
    for _ in range(2):
        with pytest.raises(Unreadable) as refused:
            await texts(forked, broken)
        assert refused.value.failure.reason is Reason.DOCUMENT_CORRUPT
        assert await texts(forked, b"The heron stands.") == ["The heron stands."]


async def test_time_on_the_clock_is_limited() -> None:
    async with ForkedExtraction(MEMORY_BYTES, 20, 0.3) as forked:
        with pytest.raises(Unreadable) as refused:
            await texts(forked, ENDLESS)
        assert refused.value.failure.reason is Reason.EXTRACTION_LIMIT
        await until_alone(starter(forked))


async def test_a_stopped_reading_ends_its_reader(forked: ForkedExtraction) -> None:
    reading = asyncio.create_task(texts(forked, ENDLESS))
    async with asyncio.timeout(10):
        while not starter(forked).children():
            await asyncio.sleep(0.01)
    reading.cancel()
    await until_alone(starter(forked))
    assert await texts(forked, b"The heron stands.") == ["The heron stands."]


async def test_readers_end_with_the_process_that_starts_them_and_it_comes_again(forked: ForkedExtraction) -> None:
    reading = asyncio.create_task(texts(forked, ENDLESS))
    async with asyncio.timeout(10):
        while not (readers := starter(forked).children()):
            await asyncio.sleep(0.01)
    starter(forked).kill()
    with pytest.raises(RuntimeError):  # the document is tried again
        await reading
    async with asyncio.timeout(10):
        while any(reader.is_running() and reader.status() != psutil.STATUS_ZOMBIE for reader in readers):
            await asyncio.sleep(0.01)
    assert await texts(forked, b"The heron stands.") == ["The heron stands."]


async def test_no_process_outlives_it() -> None:
    async with ForkedExtraction(MEMORY_BYTES, 20, 60.0) as forked:
        assert await texts(forked, b"The heron stands.") == ["The heron stands."]
        process = starter(forked)
        environment = process.environ()
    assert not process.is_running()
    assert not [name for name in environment if "PARLEY" in name]
