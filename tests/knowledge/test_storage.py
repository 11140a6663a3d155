"""The store of originals on a real S3."""

import os
import tempfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from services.knowledge.storage import StoredOriginals
from services.shared.errors import Reason, Unavailable
from stack.mesh import Mesh
from stack.s3 import BUCKET

TENANT = uuid4()


def originals_of(mesh: Mesh, **changed: object) -> StoredOriginals:
    settings = {
        "s3_endpoint": f"http://{mesh.address('s3')}",
        "s3_bucket": BUCKET,
        "s3_region": "local",
        "s3_access_key_file": mesh.secret_file("s3-access-key"),
        "s3_secret_key_file": mesh.secret_file("s3-secret-key"),
    }
    return StoredOriginals(SimpleNamespace(**settings | changed))


@pytest.fixture(scope="module")
def originals(stores: Mesh) -> StoredOriginals:
    return originals_of(stores)


def files(mesh: Mesh) -> set[str]:
    bucket = mesh.data_dir / "s3" / "buckets" / BUCKET
    return {str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file()}


async def read(originals: StoredOriginals, document_id: UUID) -> bytes:
    return b"".join([part async for part in originals.read(TENANT, document_id)])


@pytest.mark.parametrize("size", [1, 5_000_000, 6 * 1024 * 1024, 32 * 1024 * 1024])
async def test_an_original_comes_back_byte_for_byte(originals: StoredOriginals, size: int) -> None:
    document_id, content = uuid4(), os.urandom(size)
    with tempfile.SpooledTemporaryFile(max_size=1024 * 1024) as file:
        file.write(content)
        file.seek(0)
        await originals.put(TENANT, document_id, file)
    assert await read(originals, document_id) == content
    await originals.delete(TENANT, document_id)


async def test_a_deleted_original_is_gone_from_disk(stores: Mesh, originals: StoredOriginals) -> None:
    document_id = uuid4()
    await originals.put(TENANT, document_id, BytesIO(b"content"))
    assert f"{TENANT}/{document_id}" in files(stores)
    for _ in range(2):
        await originals.delete(TENANT, document_id)
    assert f"{TENANT}/{document_id}" not in files(stores)
    with pytest.raises(Unavailable):
        await read(originals, document_id)


async def test_chunks_come_in_order_up_to_the_first_gap(originals: StoredOriginals) -> None:
    upload_id = uuid4()
    for offset, chunk in ((100, b"c" * 10), (0, b"a" * 60), (60, b"b" * 40), (200, b"d")):
        await originals.put_chunk(TENANT, upload_id, offset, chunk)
    assert [chunk async for chunk in originals.chunks(TENANT, upload_id, 110)] == [b"a" * 60, b"b" * 40, b"c" * 10]
    assert len([chunk async for chunk in originals.chunks(TENANT, upload_id, 300)]) == 3
    await originals.delete_chunks(TENANT, upload_id)
    assert [chunk async for chunk in originals.chunks(TENANT, upload_id, 110)] == []


async def test_deleting_chunks_leaves_other_uploads(stores: Mesh, originals: StoredOriginals) -> None:
    gone, kept = uuid4(), uuid4()
    for upload_id in (gone, kept):
        await originals.put_chunk(TENANT, upload_id, 0, b"chunk")
    await originals.delete_chunks(TENANT, gone)
    assert {path for path in files(stores) if path.startswith("uploads/")} == {f"uploads/{TENANT}/{kept}/0"}
    await originals.delete_chunks_older_than(3600)
    assert f"uploads/{TENANT}/{kept}/0" in files(stores)
    await originals.delete_chunks_older_than(-1)
    assert f"uploads/{TENANT}/{kept}/0" not in files(stores)


async def test_a_store_that_can_not_be_used_is_unavailable(stores: Mesh, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("wrong")
    closed = originals_of(stores, s3_endpoint="http://127.0.0.1:9")
    foreign = originals_of(stores, s3_access_key_file=tmp_path / "key")
    no_bucket = originals_of(stores, s3_bucket="no-such-bucket")
    for originals in (closed, foreign, no_bucket):
        with pytest.raises(Unavailable) as refused:
            await originals.put_chunk(TENANT, uuid4(), 0, b"chunk")
        assert refused.value.reason is Reason.STORAGE_UNAVAILABLE
        with pytest.raises(Exception, match=r"(?i)error"):
            await originals.probe()


async def test_the_probe_passes_on_an_empty_bucket(originals: StoredOriginals) -> None:
    await originals.probe()
