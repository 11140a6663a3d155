"""The passages in Milvus: one collection for each index, for all organisations, partitioned by tenant.

Each row has a dense vector of the embedding model and a sparse one of the passage's terms (lexical.py). FLAT: the
nearest are found exactly, which filtered approximate indexes do not promise. Inner products: the dense vectors have
length 1, and for cosines the one-machine server would norm all of them anew in each search.

The tenant, who may read a passage and what else a search is narrowed to are part of every query, never of what is done
with its answer: passages that the caller does not see would take the places of those that are wanted.

After a restart of Milvus a collection has to be loaded again: the first call that fails makes the next one load it
anew, and so does the readiness probe. Nothing but `create` makes a collection: one that was dropped stays gone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
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
from services.knowledge.expression import EVERYBODY, microseconds, wanted, where
from services.knowledge.filters import EVERYTHING, Filters
from services.knowledge.indexes.version import IndexVersion, Row
from services.knowledge.lexical import NO_TERM, SparseVector, passage_vector
from services.knowledge.passages import Passage, passage_id
from services.knowledge.search import Vector
from services.shared.errors import Reason, Unavailable
from services.shared.serving.deadline import within

T = TypeVar("T")
_NOBODY = UUID(int=0)
_NAME = "passages_"
_PARTITIONS = 16
_AT_ONCE = 200
"""Rows that are read or placed in one call."""
_SCANNED_AT_ONCE = 2000
_IDS = ["passage_id", "tenant_id", "document_id"]
_SEARCH_TIMEOUT_S = 5.0
_WRITE_TIMEOUT_S = 20.0
_OPEN_TIMEOUT_S = 10.0
_WARM_AFTER_S = (2.0, 10.0)
"""After a write, again once segments have been merged; and no more often while there are writes."""
_WARM_TIMEOUT_S = 60.0

# No pings on idle connections, by default every 10 s: servers end a connection for them (decision 19).
_CHANNEL = {"grpc.max_reconnect_backoff_ms": 1000, "grpc.keepalive_time_ms": 2**31 - 1}

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # every failure is raised and logged by us


class PassageIndexes:
    """Implements indexes.rebuild.Stores; closed at the end of `async with`. Every method raises Unavailable."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = AsyncMilvusClient(url, grpc_options=_CHANNEL)
        self._opened: dict[int, PassageIndex] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    def of(self, version: IndexVersion) -> "PassageIndex":
        """The rows of this index."""
        if version.id not in self._opened:
            self._opened[version.id] = PassageIndex(self._url, self._client, _collection(version.id))
        return self._opened[version.id]

    async def create(self, version: IndexVersion) -> bool:
        """Have the collection of an index, ready to be written and searched; True if it is a new one."""
        with _unavailable():
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                is_new = not await self._client.has_collection(_collection(version.id))
                if is_new:
                    await asyncio.to_thread(_create, self._url, _collection(version.id), version.dimensions)
        await self.of(version).probe()
        return is_new

    async def drop(self, index_id: int) -> None:
        """Drop the collection of an index, if there is one."""
        self._opened.pop(index_id, None)
        await self._drop(_collection(index_id))

    async def probe(self) -> None:
        """Raise unless Milvus answers; forget what was dropped."""
        names = await self._names()
        self._opened = {key: index for key, index in self._opened.items() if _collection(key) in names}

    async def keep_warm(self) -> None:
        """Until cancelled: warm after writes."""
        while True:
            cold = [index for index in self._opened.values() if index.cooled()]
            for pause_s in _WARM_AFTER_S if cold else (_WARM_AFTER_S[0],):
                await asyncio.sleep(pause_s)
                for index in cold:
                    with suppress(Unavailable):
                        await index.warm()

    async def _names(self) -> Sequence[str]:
        with _unavailable():
            return await self._client.list_collections(timeout=_OPEN_TIMEOUT_S)

    async def _drop(self, name: str) -> None:
        with _unavailable():
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                await self._client.drop_collection(name)


class PassageIndex:
    """Implements indexes.version.Rows: the rows of one index. Every method raises Unavailable."""

    def __init__(self, url: str, client: AsyncMilvusClient, name: str) -> None:
        self._url = url
        self._client = client
        self._name = name
        self._is_loaded = False
        self._loading = asyncio.Lock()
        self._is_cold = True

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
        await self._call(lambda: self._client.upsert(self._name, rows), _WRITE_TIMEOUT_S)
        self._is_cold = True

    async def remove(self, tenant_id: UUID, document_id: UUID) -> None:
        rows = where(tenant_id=str(tenant_id), document_id=str(document_id))
        await self._call(lambda: self._client.delete(self._name, filter=rows), _WRITE_TIMEOUT_S)

    async def place(self, document: Document) -> None:
        """A partial upsert: vectors stay as they are, and a row that has gone does not come back."""
        place = _place(document)
        async for found in self._rows(document, list(place)):
            rows = [
                {"passage_id": row["passage_id"], "tenant_id": row["tenant_id"], **place}
                for row in found
                if any(row[name] != place[name] for name in place)
            ]
            if rows:
                await self._call(partial(self._client.upsert, self._name, rows, partial_update=True), _WRITE_TIMEOUT_S)
                self._is_cold = True

    async def delete(self, passage_ids: Sequence[UUID]) -> None:
        for begin in range(0, len(passage_ids), _AT_ONCE):
            part = list(map(str, passage_ids[begin : begin + _AT_ONCE]))
            await self._call(partial(self._client.delete, self._name, ids=part), _WRITE_TIMEOUT_S)

    async def count(self, document: Document) -> int:
        return sum([len(rows) async for rows in self._rows(document, ())])

    async def all(self) -> AsyncIterator[Sequence[Row]]:
        """The asynchronous client has no iterator; without one, pages have no order."""
        client, pages = None, None
        try:
            with _unavailable():
                client = await asyncio.to_thread(partial(MilvusClient, self._url, grpc_options=_CHANNEL))
                pages = await asyncio.to_thread(
                    lambda: client.query_iterator(self._name, _SCANNED_AT_ONCE, output_fields=_IDS)
                )
            while True:
                with _unavailable():
                    found = await asyncio.to_thread(pages.next)
                if not found:
                    return
                yield [Row(*(UUID(row[name]) for name in _IDS)) for row in found]
        finally:
            if pages:
                pages.close()
            if client:
                client.close()

    async def nearest(
        self,
        tenant_id: UUID,
        vector: Vector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        return await self._search(wanted(tenant_id, user_id, filters), "dense", vector, limit)

    async def sharing(
        self,
        tenant_id: UUID,
        terms: SparseVector,
        limit: int,
        user_id: UUID | None = None,
        filters: Filters = EVERYTHING,
    ) -> Mapping[UUID, float]:
        return await self._search(wanted(tenant_id, user_id, filters), "sparse", terms, limit)

    def cooled(self) -> bool:
        """Whether there were writes since this was asked last."""
        was_cold, self._is_cold = self._is_cold, False
        return was_cold

    async def warm(self) -> None:
        """Have what was written put into a segment, and search for nothing.

        The one-machine server indexes the terms of what is in no segment yet in each search, and those of a segment in
        the first one, which takes it seconds for 10,000 passages: no user should wait for that.
        """
        await self._call(lambda: self._client.flush(self._name), _WARM_TIMEOUT_S)
        await self._search(where(tenant_id=str(_NOBODY)), "sparse", {NO_TERM: 1.0}, 1, _WARM_TIMEOUT_S)

    async def probe(self) -> None:
        """Raise unless the collection can be searched."""
        self._is_loaded = False
        await self._call(lambda: self._client.get_load_state(self._name), _OPEN_TIMEOUT_S)

    async def _rows(self, document: Document, fields: Sequence[str]) -> AsyncIterator[Sequence[Mapping[str, object]]]:
        """Those of a document that there are, some at a time."""
        ids = [str(passage_id(document.id, position)) for position in range(document.progress.passages)]
        for begin in range(0, len(ids), _AT_ONCE):
            part = ids[begin : begin + _AT_ONCE]
            found = await self._call(
                partial(self._client.get, self._name, part, output_fields=["tenant_id", *fields]),
                _WRITE_TIMEOUT_S,
            )
            yield [row for row in found if row["tenant_id"] == str(document.tenant_id)]

    async def _search(
        self,
        expression: str,
        field: str,
        vector: Vector | SparseVector,
        limit: int,
        timeout_s: float = _SEARCH_TIMEOUT_S,
    ) -> Mapping[UUID, float]:
        [hits] = await self._call(
            lambda: self._client.search(
                self._name,
                [vector],
                filter=expression,
                limit=limit,
                output_fields=["passage_id"],  # else whole rows come back
                search_params={"metric_type": "IP"},
                anns_field=field,
            ),
            timeout_s,
        )
        return {UUID(hit["passage_id"]): hit["distance"] for hit in hits}

    async def _call(self, work: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        try:
            with _unavailable():
                async with asyncio.timeout(within(timeout_s)):
                    await self._load()
                    return await work()
        except Unavailable:
            self._is_loaded = False
            self._is_cold = True
            raise

    async def _load(self) -> None:
        async with self._loading:
            if not self._is_loaded:
                await self._client.load_collection(self._name)
                self._is_loaded = True


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (MilvusException, grpc.RpcError, OSError) as error:
        message = "Search can't answer just now: the index can't be reached. Retry."
        raise Unavailable(Reason.SEARCH_UNAVAILABLE, message) from error


def _collection(index_id: int) -> str:
    return f"{_NAME}{index_id}"


def _place(document: Document) -> dict[str, str | int]:
    """Of a row, what a search is narrowed by."""
    return {
        "reader": str(document.user_id) if document.file.visibility is Visibility.PRIVATE else EVERYBODY,
        "collection": document.file.collection,
        "content_type": document.content_type,
        "create_time": microseconds(document.create_time),
    }


def _create(url: str, name: str, dimensions: int) -> None:
    """Blocking: the asynchronous client waits for indexes by an RPC that the one-machine server lacks."""
    client = MilvusClient(url, grpc_options=_CHANNEL)
    try:
        schema, indexes = _schema(dimensions)
        client.create_collection(name, schema=schema, num_partitions=_PARTITIONS, consistency_level="Strong")
        client.create_index(name, indexes, sync=False)
    finally:
        client.close()


def _schema(dimensions: int) -> tuple[CollectionSchema, IndexParams]:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("passage_id", DataType.VARCHAR, max_length=36, is_primary=True)
    schema.add_field("tenant_id", DataType.VARCHAR, max_length=36, is_partition_key=True)
    schema.add_field("document_id", DataType.VARCHAR, max_length=36)
    schema.add_field("reader", DataType.VARCHAR, max_length=36)
    schema.add_field("collection", DataType.VARCHAR, max_length=240)  # bytes of 60 characters
    schema.add_field("content_type", DataType.VARCHAR, max_length=127)
    schema.add_field("create_time", DataType.INT64)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=dimensions)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="IP")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    return schema, indexes
