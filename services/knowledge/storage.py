"""Originals and chunks of unfinished uploads in S3.

Keys: `<tenant>/<document>` and `uploads/<tenant>/<upload>/<offset>`. Hashes and names are in the record, not here. The
bucket exists and belongs to this service alone.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from services.knowledge.indexes.reconcile import Stored
from services.knowledge.settings import Settings
from services.shared.errors import Reason, Unavailable

_PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes
_READ_BYTES = 1024 * 1024
_UPLOADS = "uploads"


class StoredOriginals:
    """Implements upload.Originals, indexing.Originals, sweep.OldChunks and
    indexes.reconcile.CheckedOriginals. Every method raises Unavailable."""

    def __init__(self, settings: Settings) -> None:
        self._store = S3Store(
            settings.s3_bucket,
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            access_key_id=settings.s3_access_key_file.read_text().strip(),
            secret_access_key=settings.s3_secret_key_file.read_text().strip(),
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": settings.s3_endpoint.startswith("http://"),
                "connect_timeout": "2s",
                "timeout": "30s",
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=5)},
        )

    async def put(self, tenant_id: UUID, document_id: UUID, content: IO[bytes]) -> None:
        with _unavailable():
            await obstore.put_async(
                self._store, _key(tenant_id, document_id), content, chunk_size=_PART_BYTES, max_concurrency=2
            )

    async def read(self, tenant_id: UUID, document_id: UUID) -> AsyncIterator[bytes]:
        with _unavailable():
            found = await obstore.get_async(self._store, _key(tenant_id, document_id))
            async for part in found.stream(min_chunk_size=_READ_BYTES):
                yield bytes(part)

    async def delete(self, tenant_id: UUID, document_id: UUID) -> None:
        with _unavailable():
            await obstore.delete_async(self._store, _key(tenant_id, document_id))

    async def put_chunk(self, tenant_id: UUID, upload_id: UUID, offset_bytes: int, chunk: bytes) -> None:
        with _unavailable():
            await obstore.put_async(self._store, f"{_chunks(tenant_id, upload_id)}/{offset_bytes}", chunk)

    async def chunks(self, tenant_id: UUID, upload_id: UUID, size_bytes: int) -> AsyncIterator[bytes]:
        offset_bytes = 0
        while offset_bytes < size_bytes:
            with _unavailable():
                try:
                    found = await obstore.get_async(self._store, f"{_chunks(tenant_id, upload_id)}/{offset_bytes}")
                except FileNotFoundError:
                    return
                chunk = bytes(await found.bytes_async())
            yield chunk
            offset_bytes += len(chunk)

    async def delete_chunks(self, tenant_id: UUID, upload_id: UUID) -> None:
        with _unavailable():
            await self._delete_listed(_chunks(tenant_id, upload_id), datetime.max.replace(tzinfo=UTC))

    async def delete_chunks_older_than(self, age_s: float) -> None:
        """Delete the chunks of all organisations that were stored longer ago."""
        with _unavailable():
            await self._delete_listed(_UPLOADS, datetime.now(UTC) - timedelta(seconds=age_s))

    async def older_than(self, age_s: float) -> AsyncIterator[Sequence[Stored]]:
        """What was stored longer ago, some at a time."""
        before = datetime.now(UTC) - timedelta(seconds=age_s)
        with _unavailable():
            async for found in obstore.list(self._store):
                yield [_stored(entry["path"]) for entry in found if entry["last_modified"] < before]

    async def delete_keys(self, keys: Sequence[str]) -> None:
        if keys:
            with _unavailable():
                await obstore.delete_async(self._store, list(keys))

    async def probe(self) -> None:
        """Raise unless the bucket is there for these keys."""
        await obstore.list_with_delimiter_async(self._store, "probe")

    async def _delete_listed(self, prefix: str, before: datetime) -> None:
        async for found in obstore.list(self._store, prefix):
            old = [entry["path"] for entry in found if entry["last_modified"] < before]
            if old:
                await obstore.delete_async(self._store, old)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        message = "The store of originals can't be reached just now; nothing was stored. Retry."
        raise Unavailable(Reason.STORAGE_UNAVAILABLE, message) from error


def _key(tenant_id: UUID, document_id: UUID) -> str:
    return f"{tenant_id}/{document_id}"


def _stored(key: str) -> Stored:
    """Raises ValueError for a key that is not ours: the bucket belongs to this service alone."""
    is_chunk = key.startswith(f"{_UPLOADS}/")
    return Stored(key, UUID(key.split("/")[2 if is_chunk else 1]), is_chunk)


def _chunks(tenant_id: UUID, upload_id: UUID) -> str:
    return f"{_UPLOADS}/{tenant_id}/{upload_id}"
