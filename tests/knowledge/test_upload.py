"""Receiving files."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from services.knowledge.document import Member
from services.knowledge.upload import MAX_BYTES, Reception, Upload
from services.shared.errors import AlreadyExists, Invalid, NotFound, Reason, Refusal, Unavailable, WrongState
from tests.knowledge.conftest import a_file, a_member, in_parts
from tests.knowledge.fakes import FakeOriginals, FakeRecord

CONTENT = b"All that is in the file, byte by byte."


@pytest.fixture
def record() -> FakeRecord:
    return FakeRecord()


@pytest.fixture
def originals() -> FakeOriginals:
    return FakeOriginals()


@pytest.fixture
def reception(record: FakeRecord, originals: FakeOriginals) -> Reception:
    return Reception(record, originals)


async def refused(work: object, kind: type[Refusal], reason: Reason) -> Refusal:
    with pytest.raises(kind) as refusal:
        await work
    assert refusal.value.reason is reason
    return refusal.value


async def append_all(reception: Reception, member: Member, upload: Upload, content: bytes = CONTENT) -> None:
    for offset in range(0, len(content), 10):
        await reception.append(member, upload.id, offset, content[offset : offset + 10])


async def test_a_stream_becomes_a_document(reception: Reception, record: FakeRecord, originals: FakeOriginals) -> None:
    member, file = a_member(), a_file(CONTENT)
    document = await reception.receive(member, file, in_parts(CONTENT))
    assert document.file == file
    assert originals.objects == {(member.tenant_id, document.id): CONTENT}
    assert record.events == [("DocumentUploaded", document.id)]


@pytest.mark.parametrize(
    ("sent", "kind", "reason"),
    [
        (CONTENT[:-1], WrongState, Reason.UPLOAD_INCOMPLETE),
        (b"", WrongState, Reason.UPLOAD_INCOMPLETE),
        (CONTENT + b"!", WrongState, Reason.UPLOAD_INCOMPLETE),
        (CONTENT[::-1], Invalid, Reason.CHECKSUM_MISMATCH),
    ],
)
async def test_a_stream_of_other_bytes_leaves_nothing_behind(
    reception: Reception,
    record: FakeRecord,
    originals: FakeOriginals,
    sent: bytes,
    kind: type[Refusal],
    reason: Reason,
) -> None:
    await refused(reception.receive(a_member(), a_file(CONTENT), in_parts(sent)), kind, reason)
    assert (originals.objects, record.events) == ({}, [])


@pytest.mark.parametrize(("size", "reason"), [(0, Reason.DOCUMENT_EMPTY), (MAX_BYTES + 1, Reason.DOCUMENT_TOO_LARGE)])
async def test_a_size_out_of_bounds_is_refused_before_a_byte_is_read(
    reception: Reception, size: int, reason: Reason
) -> None:
    file, member = replace(a_file(), size_bytes=size), a_member()

    async def unread() -> object:
        pytest.fail("the stream was read")
        yield b""

    await refused(reception.receive(member, file, unread()), Invalid, reason)
    await refused(reception.begin(member, file), Invalid, reason)


async def test_a_repeated_request_gets_the_first_document(reception: Reception, record: FakeRecord) -> None:
    member, file = a_member(), a_file(CONTENT)
    first = await reception.receive(member, file, in_parts(CONTENT))
    assert await reception.receive(member, file, in_parts(CONTENT)) == first
    other = replace(file, filename="other.txt")
    await refused(reception.receive(member, other, in_parts(CONTENT)), AlreadyExists, Reason.REQUEST_ID_REUSED)
    await refused(reception.begin(member, other), AlreadyExists, Reason.REQUEST_ID_REUSED)
    assert len(record.events) == 1


async def test_the_same_request_twice_at_once_leaves_one_document(
    reception: Reception, record: FakeRecord, originals: FakeOriginals
) -> None:
    member, file = a_member(), a_file(CONTENT)
    first, second = await asyncio.gather(*(reception.receive(member, file, in_parts(CONTENT)) for _ in range(2)))
    assert first == second
    assert list(originals.objects) == [(member.tenant_id, first.id)]
    assert len(record.events) == 1


async def test_without_a_store_nothing_is_recorded(
    reception: Reception, record: FakeRecord, originals: FakeOriginals
) -> None:
    originals.down = True
    await refused(
        reception.receive(a_member(), a_file(CONTENT), in_parts(CONTENT)), Unavailable, Reason.STORAGE_UNAVAILABLE
    )
    assert record.events == []


async def test_chunks_become_a_document(reception: Reception, record: FakeRecord, originals: FakeOriginals) -> None:
    member, file = a_member(), a_file(CONTENT)
    upload = await reception.begin(member, file)
    await append_all(reception, member, upload)
    document = await reception.finish(member, upload.id)
    assert (document.id, document.file) == (upload.id, file)
    assert originals.objects == {(member.tenant_id, document.id): CONTENT}
    assert record.events == [("DocumentUploaded", document.id)]


async def test_an_upload_goes_on_where_it_stands(reception: Reception) -> None:
    member, file = a_member(), a_file(CONTENT)
    upload = await reception.begin(member, file)
    assert await reception.append(member, upload.id, 0, CONTENT[:10]) == 10
    assert (await reception.begin(member, file)).received_bytes == 10
    assert await reception.append(member, upload.id, 0, CONTENT[:10]) == 10
    assert await reception.append(member, upload.id, 3, CONTENT[3:7]) == 10
    for offset in (5, 11):
        refusal = await refused(
            reception.append(member, upload.id, offset, CONTENT[offset : offset + 10]),
            WrongState,
            Reason.UPLOAD_OFFSET_MISMATCH,
        )
        assert refusal.facts == {"received_bytes": "10"}


async def test_the_same_chunk_twice_at_once_is_accepted_twice(record: FakeRecord) -> None:
    class Stalling(FakeOriginals):
        async def put_chunk(self, tenant_id: UUID, upload_id: UUID, offset_bytes: int, chunk: bytes) -> None:
            await asyncio.sleep(0)
            await super().put_chunk(tenant_id, upload_id, offset_bytes, chunk)

    reception, member = Reception(record, Stalling()), a_member()
    upload = await reception.begin(member, a_file(CONTENT))
    copies = (reception.append(member, upload.id, 0, CONTENT[:10]) for _ in range(3))
    assert await asyncio.gather(*copies) == [10, 10, 10]
    other = (
        reception.append(member, upload.id, 10, CONTENT[10:20]),
        reception.append(member, upload.id, 10, CONTENT[10:30]),
    )
    stands, refusal = await asyncio.gather(*other, return_exceptions=True)
    assert stands == 20
    assert isinstance(refusal, WrongState)


async def test_a_chunk_beyond_the_announced_size_is_refused(reception: Reception) -> None:
    member = a_member()
    upload = await reception.begin(member, a_file(CONTENT))
    work = reception.append(member, upload.id, 0, CONTENT + b"!")
    refusal = await refused(work, Invalid, Reason.DOCUMENT_TOO_LARGE)
    assert refusal.facts == {"limit_bytes": str(len(CONTENT))}


async def test_an_unfinished_upload_can_not_end_and_goes_on(reception: Reception) -> None:
    member = a_member()
    upload = await reception.begin(member, a_file(CONTENT))
    await reception.append(member, upload.id, 0, CONTENT[:10])
    await refused(reception.finish(member, upload.id), WrongState, Reason.UPLOAD_INCOMPLETE)
    assert await reception.append(member, upload.id, 10, CONTENT[10:]) == len(CONTENT)
    assert (await reception.finish(member, upload.id)).id == upload.id


async def test_chunks_of_other_bytes_leave_nothing_behind(
    reception: Reception, record: FakeRecord, originals: FakeOriginals
) -> None:
    member, file = a_member(), a_file(CONTENT)
    upload = await reception.begin(member, file)
    await append_all(reception, member, upload, CONTENT[::-1])
    await refused(reception.finish(member, upload.id), Invalid, Reason.CHECKSUM_MISMATCH)
    await refused(reception.finish(member, upload.id), NotFound, Reason.UPLOAD_NOT_FOUND)
    assert (originals.objects, record.events) == ({}, [])
    again = await reception.begin(member, file)
    assert (again.id != upload.id, again.received_bytes) == (True, 0)


async def test_a_lost_chunk_is_noticed(reception: Reception, originals: FakeOriginals) -> None:
    member = a_member()
    upload = await reception.begin(member, a_file(CONTENT))
    await append_all(reception, member, upload)
    del originals.objects[member.tenant_id, upload.id, 10]
    await refused(reception.finish(member, upload.id), WrongState, Reason.UPLOAD_INCOMPLETE)


async def test_ending_twice_gives_the_same_document(reception: Reception, record: FakeRecord) -> None:
    member, file = a_member(), a_file(CONTENT)
    upload = await reception.begin(member, file)
    await append_all(reception, member, upload)
    first, second = await asyncio.gather(*(reception.finish(member, upload.id) for _ in range(2)))
    assert first == second == await reception.finish(member, upload.id)
    again = await reception.begin(member, file)
    assert (again.id, again.received_bytes) == (first.id, len(CONTENT))
    assert len(record.events) == 1


@pytest.mark.parametrize("same_tenant", [True, False])
async def test_an_upload_of_somebody_else_is_not_found(reception: Reception, same_tenant: bool) -> None:
    member = a_member()
    upload = await reception.begin(member, a_file(CONTENT))
    stranger = a_member(member.tenant_id if same_tenant else None)
    await refused(reception.append(stranger, upload.id, 0, CONTENT), NotFound, Reason.UPLOAD_NOT_FOUND)
    await append_all(reception, member, upload)
    await refused(reception.finish(stranger, upload.id), NotFound, Reason.UPLOAD_NOT_FOUND)


async def test_an_unknown_upload_is_not_found(reception: Reception) -> None:
    await refused(reception.append(a_member(), uuid4(), 0, b"x"), NotFound, Reason.UPLOAD_NOT_FOUND)
    await refused(reception.finish(a_member(), uuid4()), NotFound, Reason.UPLOAD_NOT_FOUND)


async def test_a_store_lost_while_tidying_up_takes_nothing_back(reception: Reception, originals: FakeOriginals) -> None:
    member, file = a_member(), a_file(CONTENT)
    upload = await reception.begin(member, file)
    await append_all(reception, member, upload)
    put = originals.put

    async def put_then_fail(*values: object) -> None:
        await put(*values)
        originals.down = True

    originals.put = put_then_fail
    assert (await reception.finish(member, upload.id)).file == file
