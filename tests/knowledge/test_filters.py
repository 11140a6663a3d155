"""What a search is narrowed to: in the index on a real Milvus, in the record, and over the RPC."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bench.extraction import EVALUATION
from parley.knowledge.v1.knowledge_service_pb2 import SearchRequest
from services.knowledge.document import Document, Visibility
from services.knowledge.expression import where
from services.knowledge.filters import EVERYTHING, Filters
from services.knowledge.index import PassageIndex, PassageIndexes
from services.knowledge.indexing import Extracted
from services.knowledge.lexical import Rarity
from services.knowledge.passages import Passage, passage_id
from services.shared.errors import Reason
from stack.mesh import Mesh
from tests.knowledge.conftest import Record, a_file, a_member, add, uploader
from tests.knowledge.fakes import passes, vector_of
from tests.knowledge.index_fakes import FIRST
from tests.knowledge.serving import Served
from tests.refusals import refusal_of

Find = Callable[..., Awaitable[list[UUID]]]
START = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOSTILE = [
    '"',
    "'",
    "\\",
    '\\"',
    "\\\\",
    '" or tenant_id != "',
    '"] or tenant_id in ["',
    '", "',
    "] or 1 == 1 or collection in [",
    "' or ''=='",
    '\\" or tenant_id like "%',
    "\n",
    "\r\n\t",
    "\u2028\u2029\x0b\x0c\x85",
    "%",
    "{reader}",
    "collection",
    "null",
    "true",
    "-1",
    "מדריך 你好 🤖 \u202e",
]


def naughty() -> list[str]:
    file = EVALUATION / "hostile" / "blns" / "blns.json"
    strings = json.loads(file.read_text()) if file.is_file() else []
    return [text for text in strings if text and "\0" not in text and len(text) <= 60]


@pytest.fixture(scope="module")
async def index(stores: Mesh) -> AsyncIterator[PassageIndex]:
    async with PassageIndexes(f"http://{stores.address('milvus')}") as indexes:
        await indexes.create(FIRST)
        yield indexes.of(FIRST)


async def near(
    index: PassageIndex, tenant_id: UUID, user_id: UUID | None, filters: Filters, limit: int = 10
) -> list[UUID]:
    return list(await index.nearest(tenant_id, vector_of("plan"), limit, user_id, filters))


async def sharing(
    index: PassageIndex, tenant_id: UUID, user_id: UUID | None, filters: Filters, limit: int = 10
) -> list[UUID]:
    return list(await index.sharing(tenant_id, Rarity().question_vector("plan"), limit, user_id, filters))


@pytest.fixture(params=[near, sharing], ids=["near", "sharing"])
def find(request: pytest.FixtureRequest) -> Find:
    """Each side of the search."""
    return request.param


def a_document(tenant_id: UUID, time: datetime = START, content_type: str = "text/plain", **file: object) -> Document:
    return Document(
        id=uuid4(),
        tenant_id=tenant_id,
        user_id=uuid4(),
        file=a_file(**file),
        content_type=content_type,
        create_time=time,
    )


async def write(index: PassageIndex, *documents: Document) -> dict[UUID, Document]:
    """One passage of each, all alike. Returns its id with the document."""
    for document in documents:
        await index.write(document, [Passage(0, "The plan.")], [vector_of("the plan")])
    return {passage_id(document.id, 0): document for document in documents}


PRIVATE = Visibility.PRIVATE


async def test_what_others_hide_takes_no_place(index: PassageIndex, find: Find) -> None:
    tenant_id, me = uuid4(), uuid4()
    await write(index, *(a_document(tenant_id, visibility=PRIVATE) for _ in range(40)))
    mine = await write(index, replace(a_document(tenant_id, visibility=PRIVATE), user_id=me))
    shared = await write(index, a_document(tenant_id))
    assert set(await find(index, tenant_id, me, EVERYTHING, limit=2)) == {*mine, *shared}
    assert await find(index, tenant_id, uuid4(), EVERYTHING, limit=2) == [*shared]
    assert await find(index, tenant_id, None, EVERYTHING, limit=2) == [*shared]
    assert await find(index, uuid4(), me, EVERYTHING) == []


FILTERS = [
    Filters(collections=("plans",)),
    Filters(collections=("",)),
    Filters(collections=("plans", "facts", "none such")),
    Filters(content_types=("text/csv",)),
    Filters(content_types=("text/csv", "text/plain")),
    Filters(created_after=START),
    Filters(created_after=START + TICK),
    Filters(created_before=START),
    Filters(created_before=START + TICK),
    Filters(created_after=START - TICK, created_before=START + TICK),
    Filters(created_after=START + TICK, created_before=START),
    Filters(created_after=datetime.min.replace(tzinfo=UTC)),
    Filters(created_before=datetime.min.replace(tzinfo=UTC)),
    Filters(created_after=datetime.max.replace(tzinfo=UTC)),
    Filters(created_before=datetime.max.replace(tzinfo=UTC)),
    Filters(("plans",), ("text/csv",), START, START + TICK),
]


@pytest.fixture(scope="module")
async def variety(index: PassageIndex) -> dict[UUID, Document]:
    tenant_id = uuid4()
    return await write(
        index,
        *(
            a_document(tenant_id, time, content_type, collection=collection)
            for time in (START - TICK, START, START + TICK)
            for content_type in ("text/plain", "text/csv")
            for collection in ("", "plans", "facts")
        ),
    )


@pytest.mark.parametrize("filters", FILTERS)
async def test_the_index_finds_what_passes(
    index: PassageIndex, find: Find, variety: dict[UUID, Document], filters: Filters
) -> None:
    [tenant_id] = {document.tenant_id for document in variety.values()}
    wanted = {key for key, document in variety.items() if passes(document, filters)}
    assert set(await find(index, tenant_id, None, filters, limit=50)) == wanted


async def test_each_hostile_name_finds_its_own_document(index: PassageIndex, find: Find) -> None:
    tenant_id = uuid4()
    names = [*HOSTILE, *dict.fromkeys(naughty())]
    written = await write(index, *(a_document(tenant_id, collection=name) for name in names))
    await write(index, a_document(uuid4()))
    for key, document in written.items():
        [name] = [document.file.collection]
        assert key in await find(index, tenant_id, None, Filters(collections=(name,)), limit=500), repr(name)
        assert await find(index, tenant_id, None, Filters(content_types=(name,)), limit=500) == [], repr(name)
        assert await find(index, uuid4(), None, Filters(collections=(name, "a")), limit=500) == [], repr(name)
    for begin in range(0, len(names), 20):
        own = tuple(names[begin : begin + 20])
        wanted = {key for key, document in written.items() if document.file.collection in own}
        assert set(await find(index, tenant_id, None, Filters(collections=own), limit=500)) == wanted


async def test_lists_of_hostile_values_match_themselves(index: PassageIndex) -> None:
    client = index._client  # the ports take no other lists; this is about the one function that builds expressions
    await index.probe()
    rows = [
        {
            "passage_id": str(uuid4()),
            "tenant_id": "lists",
            "document_id": value,
            "reader": "",
            "collection": "",
            "content_type": "",
            "create_time": 0,
            "dense": vector_of("row"),
            "sparse": {1: 1.0},
        }
        for value in HOSTILE
    ]
    await client.upsert(index._name, rows)
    for size in (1, 2, len(rows)):
        own = where(tenant_id="lists", document_id=[row["document_id"] for row in rows[:size]])
        found = await client.query(index._name, filter=own, output_fields=["document_id"])
        assert {hit["passage_id"] for hit in found} == {row["passage_id"] for row in rows[:size]}
    none = where(tenant_id="lists", document_id=["none such"])
    assert await client.query(index._name, filter=none, output_fields=["document_id"]) == []
    await client.delete(index._name, filter=where(tenant_id="lists"))


async def indexed(record: Record, **file: object) -> Document:
    document = await add(record, a_member(), a_file(**file))
    await record.documents.begin_indexing(document.tenant_id, document.id)
    await record.documents.announce(document, Extracted("text/csv", 0, 1, iter(())))
    await record.documents.add_passages(document, [Passage(0, "The plan.")])
    await record.documents.complete(document, 1, FIRST.id)
    found = await record.documents.find(document.tenant_id, document.id)
    assert found
    return found


async def test_the_record_finds_what_passes(record: Record) -> None:
    document = await indexed(record, collection="plans")
    START = document.create_time
    for filters in (
        *(Filters(collections=names) for names in (("plans",), ("",), ("Plans",), ("a", "plans"), ("plans' --",))),
        *(Filters(content_types=types) for types in (("text/csv",), ("text/plain",), ("text/plain", "text/csv"))),
        *(Filters(created_after=START + step * TICK) for step in (-1, 0, 1)),
        *(Filters(created_before=START + step * TICK) for step in (-1, 0, 1)),
        *FILTERS[-5:],
    ):
        found = await record.documents.searchable(
            document.tenant_id, [passage_id(document.id, 0)], 10, uploader(document).user_id, filters
        )
        assert bool(found) == passes(document, filters), filters


async def searched(served: Served, **request: object) -> int:
    answer = await served.stub.Search(SearchRequest(query="dogs", **request), **served.me())
    return len(answer.passages)


async def test_search_is_narrowed_by_its_request(served: Served) -> None:
    document = await served.upload(collection="plans")
    await served.work_off(document)
    time, later, rest = document.create_time, Timestamp(), Timestamp()
    later.FromMicroseconds(time.ToMicroseconds() + 1)
    rest.CopyFrom(time)
    rest.nanos += 1
    assert await searched(served) == await searched(served, collections=["facts", "plans"]) == 1
    assert await searched(served, content_types=["text/plain", "application/pdf"]) == 1
    assert await searched(served, created_after=time, created_before=later) == 1
    assert await searched(served, created_before=rest) == 1
    for narrow in (
        {"collections": [""]},
        {"collections": ["facts"]},
        {"content_types": ["application/pdf"]},
        {"created_after": later},
        {"created_after": rest},
        {"created_before": time},
    ):
        assert await searched(served, **narrow) == 0, narrow


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"collections": ["a"] * 21}, "collections"),
        ({"collections": [" a"]}, "collections"),
        ({"collections": ["x" * 61]}, "collections"),
        ({"content_types": [""]}, "content_types"),
        ({"content_types": ["x" * 128]}, "content_types"),
        ({"content_types": ["x"] * 21}, "content_types"),
        ({"content_types": ["a\0"]}, "content_types"),
        ({"created_after": Timestamp(seconds=253_402_300_800)}, "created_after"),
        ({"created_after": Timestamp(seconds=-62_135_596_801)}, "created_after"),
        ({"created_before": Timestamp(seconds=2**63 - 1)}, "created_before"),
        ({"created_before": Timestamp(seconds=-(2**63))}, "created_before"),
        ({"created_before": Timestamp(nanos=-1)}, "created_before"),
        ({"created_before": Timestamp(nanos=10**9)}, "created_before"),
    ],
)
async def test_an_absurd_filter_is_refused(served: Served, fields: dict[str, object], path: str) -> None:
    refusal = await refusal_of(served.stub.Search(SearchRequest(query="dogs", **fields), **served.me()))
    assert refusal.reason is Reason.INVALID_FIELD
    assert [name.partition("[")[0] for name in refusal.violations] == [path]


async def test_naughty_filters_find_nothing_or_are_refused(served: Served) -> None:
    await served.work_off(await served.upload())
    strings = [*HOSTILE, *naughty()]

    async def ask(text: str) -> None:
        for request in ({"collections": [text]}, {"content_types": [text]}):
            call = served.stub.Search(SearchRequest(query="dogs", **request), **served.me())
            try:
                assert list((await call).passages) == [], repr(text)
            except Exception:
                assert (await refusal_of(call)).reason is Reason.INVALID_FIELD, repr(text)

    await asyncio.gather(*map(ask, strings))


@pytest.mark.parametrize(("seconds", "nanos"), [(253_402_300_799, 999_999_999), (-62_135_596_800, 0), (0, 1)])
async def test_the_first_and_the_last_time_are_taken(served: Served, seconds: int, nanos: int) -> None:
    time = Timestamp(seconds=seconds, nanos=nanos)
    await searched(served, created_after=time)
    await searched(served, created_before=time)
