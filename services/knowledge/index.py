"""The vectors in Milvus: one collection for all organisations, partitioned by tenant.

Each row has a dense vector of the embedding model and a sparse one of the passage's terms (lexical.py). FLAT: the
nearest are found exactly, which filtered approximate indexes do not promise. Inner products: the dense vectors have
length 1, and for cosines the one-machine server would norm all of them anew in each search.

The tenant, who may read a passage and what else a search is narrowed to are part of every query, never of what is done
with its answer: passages that the caller does not see would take the places of those that are wanted.

After a restart of Milvus the collection has to be loaded again: the first call that fails makes the next one open
the collection anew, and so does the readiness probe.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import grpc
from pymilvus import (
    AsyncMilvusClient,
    CollectionSchema,
    DataType,
    MilvusClient,
    MilvusException,
)
from pymilvus.milvus_client.index import IndexParams

from services.knowledge.document import Document, Visibility
from services.knowledge.filters import EVERYTHING, Filters
from services.knowledge.lexical import NO_TERM, SparseVector, passage_vector
from services.knowledge.passages import Passage, passage_id
from services.knowledge.search import Vector
from services.shared.errors import Reason, Unavailable
from services.shared.serving.deadline import within

T = TypeVar("T")
_NOBODY = UUID(int=0)
_EVERYBODY = ""
"""The reader of what the whole organisation sees."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_LATEST = 2**63 - 1
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
COLLECTION = "passages_by_reader"
DIMENSIONS = 384
_PARTITIONS = 16
_PLACED_AT_ONCE = 200
_SEARCH_TIMEOUT_S = 5.0
_WRITE_TIMEOUT_S = 20.0
_OPEN_TIMEOUT_S = 10.0
_WARM_AFTER_S = (2.0, 10.0)
"""After a write, again once segments have been merged; and no more often while there are writes."""
_WARM_TIMEOUT_S = 60.0

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # every failure is raised and logged by us


class PassageIndex:
    """Implements indexing.Index, placing.PlacingIndex and search.SearchableIndex; closed at the end of `async with`.

    Every method raises Unavailable.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = AsyncMilvusClient(url, grpc_options={"grpc.max_reconnect_backoff_ms": 1000})
        self._is_open = False
        self._opening = asyncio.Lock()
        self._cold = asyncio.Event()
        self._cold.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def write(self, document: Document, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        # Terms take up to half a millisecond a passage: not on the loop that answers searches.
        terms = await asyncio.to_thread(lambda: [passage_vector(passage.searchable_text) for passage in passages])
        rows = [
            {
                "passage_id": str(passage_id(document.id, passage.position)),
                "tenant_id": str(document.tenant_id),
                "document_id": str(document.id),
                **_place(document),
                "dense": vector,
                "sparse": sparse,
            }
            for passage, vector, sparse in zip(passages, vectors, terms, strict=True)
        ]
        await self._call(lambda: self._client.upsert(COLLECTION, rows), _WRITE_TIMEOUT_S)
        self._cold.set()

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        rows = where(tenant_id=str(tenant_id), document_id=str(document_id))
        await self._call(lambda: self._client.delete(COLLECTION, filter=rows), _WRITE_TIMEOUT_S)

    async def place(self, document: Document) -> None:
        ids = [str(passage_id(document.id, position)) for position in range(document.progress.passages)]
        for begin in range(0, len(ids), _PLACED_AT_ONCE):
            await self._call(
                lambda part=ids[begin : begin + _PLACED_AT_ONCE]: self._place(document, part), _WRITE_TIMEOUT_S
            )

    async def _place(self, document: Document, ids: Sequence[str]) -> None:
        """A partial upsert: vectors stay as they are, and a row that has gone does not come back."""
        place = _place(document)
        found = await self._client.get(COLLECTION, ids, output_fields=["tenant_id", *place])
        rows = [
            {"passage_id": row["passage_id"], "tenant_id": row["tenant_id"], **place}
            for row in found
            if row["tenant_id"] == str(document.tenant_id) and any(row[name] != place[name] for name in place)
        ]
        if rows:
            await self._client.upsert(COLLECTION, rows, partial_update=True)
            self._cold.set()

    async def nearest(
        self,
        tenant_id: UUID,
        vector: Vector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        return await self._search(_wanted(tenant_id, user_id, filters), "dense", vector, limit)

    async def sharing(
        self,
        tenant_id: UUID,
        terms: SparseVector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        return await self._search(_wanted(tenant_id, user_id, filters), "sparse", terms, limit)

    async def keep_warm(self) -> None:
        """Until cancelled: warm after writes."""
        while True:
            await self._cold.wait()
            self._cold.clear()
            for pause_s in _WARM_AFTER_S:
                await asyncio.sleep(pause_s)
                with suppress(Unavailable):
                    await self.warm()

    async def warm(self) -> None:
        """Have what was written put into a segment, and search for nothing.

        The one-machine server indexes the terms of what is in no segment yet in each search, and those of a segment in
        the first one, which takes it seconds for 10,000 passages: no user should wait for that.
        """
        await self._call(lambda: self._client.flush(COLLECTION), _WARM_TIMEOUT_S)
        await self._search(where(tenant_id=str(_NOBODY)), "sparse", {NO_TERM: 1.0}, 1, _WARM_TIMEOUT_S)

    async def _search(
        self,
        wanted: str,
        field: str,
        vector: Vector | SparseVector,
        limit: int,
        timeout_s: float = _SEARCH_TIMEOUT_S,
    ) -> Mapping[UUID, float]:
        [hits] = await self._call(
            lambda: self._client.search(
                COLLECTION,
                [vector],
                filter=wanted,
                limit=limit,
                output_fields=["passage_id"],  # else whole rows come back
                search_params={"metric_type": "IP"},
                anns_field=field,
            ),
            timeout_s,
        )
        return {UUID(hit["passage_id"]): hit["distance"] for hit in hits}

    async def probe(self) -> None:
        """Raise unless the collection can be searched."""
        self._is_open = False
        await self._call(lambda: self._client.get_load_state(COLLECTION), _OPEN_TIMEOUT_S)

    async def _call(self, work: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        try:
            async with asyncio.timeout(within(timeout_s)):
                await self._open()
                return await work()
        except (MilvusException, grpc.RpcError, OSError) as error:
            self._is_open = False
            self._cold.set()
            message = "Search can't answer just now: the index can't be reached. Retry."
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, message) from error

    async def _open(self) -> None:
        """Make the collection if there is none, and have it loaded."""
        async with self._opening:
            if self._is_open:
                return
            if not await self._client.has_collection(COLLECTION):
                await asyncio.to_thread(_create, self._url)
            await self._client.load_collection(COLLECTION)
            self._is_open = True


def where(**values: str | Sequence[str] | range) -> str:
    """The filter for rows whose fields have these values: one, one of several, or a number in a range.

    The only place where values get into an expression.
    """
    return " and ".join(_condition(field, value) for field, value in values.items())


def _condition(field: str, value: str | Sequence[str] | range) -> str:
    if isinstance(value, range):
        return f"{field} >= {value.start:d} and {field} < {value.stop:d}"
    if isinstance(value, str):
        return f"{field} == {_literal(value)}"
    return f"{field} in [{', '.join(map(_literal, value))}]"


def _literal(value: str) -> str:
    return f'"{value.translate(_ESCAPES)}"'


def _wanted(tenant_id: UUID, user_id: UUID | None, filters: Filters) -> str:
    """The filter for what this member sees and asks for; without a member, for what everybody sees."""
    values: dict[str, str | Sequence[str] | range] = {"tenant_id": str(tenant_id), "reader": _EVERYBODY}
    if user_id:
        values["reader"] = (_EVERYBODY, str(user_id))
    if filters.collections:
        values["collection"] = filters.collections
    if filters.content_types:
        values["content_type"] = filters.content_types
    if filters.created_after or filters.created_before:
        # No document is older than 1970, and the grammar of expressions has no negative number.
        begin = max(0, _microseconds(filters.created_after)) if filters.created_after else 0
        end = max(0, _microseconds(filters.created_before)) if filters.created_before else _LATEST
        values["create_time"] = range(begin, end)
    return where(**values)


def _place(document: Document) -> dict[str, str | int]:
    """Of a row, what a search is narrowed by."""
    return {
        "reader": str(document.user_id) if document.file.visibility is Visibility.PRIVATE else _EVERYBODY,
        "collection": document.file.collection,
        "content_type": document.content_type,
        "create_time": _microseconds(document.create_time),
    }


def _microseconds(time: datetime) -> int:
    """Since 1970: as exact as the record."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def _create(url: str) -> None:
    """Blocking: the asynchronous client waits for indexes by an RPC that the one-machine server lacks."""
    client = MilvusClient(url)
    try:
        schema, indexes = _schema()
        client.create_collection(COLLECTION, schema=schema, num_partitions=_PARTITIONS, consistency_level="Strong")
        client.create_index(COLLECTION, indexes, sync=False)
    finally:
        client.close()


def _schema() -> tuple[CollectionSchema, IndexParams]:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("passage_id", DataType.VARCHAR, max_length=36, is_primary=True)
    schema.add_field("tenant_id", DataType.VARCHAR, max_length=36, is_partition_key=True)
    schema.add_field("document_id", DataType.VARCHAR, max_length=36)
    schema.add_field("reader", DataType.VARCHAR, max_length=36)
    schema.add_field("collection", DataType.VARCHAR, max_length=240)  # bytes of 60 characters
    schema.add_field("content_type", DataType.VARCHAR, max_length=127)
    schema.add_field("create_time", DataType.INT64)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIMENSIONS)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="IP")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    return schema, indexes
