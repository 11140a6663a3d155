"""Between proto messages and domain values: files, documents, passages, page tokens."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.knowledge.v1 import document_pb2
from parley.knowledge.v1.knowledge_service_pb2 import UploadDocumentRequest, UploadedFile
from services.knowledge.document import Document, File
from services.knowledge.search import FoundPassage
from services.shared.errors import Invalid, Reason
from services.shared.pages import foreign_token, page_key, page_token


def file(announced: UploadedFile) -> File:
    """What a client says of a file."""
    return File(UUID(announced.request_id), announced.filename, announced.size_bytes, announced.sha256)


async def first_part(parts: AsyncIterator[UploadDocumentRequest]) -> File:
    """The file that an upload stream begins with. Raises Invalid."""
    async for part in parts:
        if part.WhichOneof("part") == "file":
            return file(part.file)
        raise _out_of_order("begin with the file, then send its bytes")
    raise _out_of_order("the stream holds no message")


async def chunks(parts: AsyncIterator[UploadDocumentRequest]) -> AsyncIterator[bytes]:
    """The bytes of an upload stream after its first part. Raises Invalid."""
    async for part in parts:
        if part.WhichOneof("part") != "chunk":
            raise _out_of_order("only the first message holds the file, all others its bytes")
        yield part.chunk


def document(found: Document) -> document_pb2.Document:
    """The message of a document."""
    message = document_pb2.Document(
        id=str(found.id),
        filename=found.file.filename,
        content_type=found.content_type,
        size_bytes=found.file.size_bytes,
        sha256=found.file.sha256,
        state=document_pb2.DocumentState.Value(f"DOCUMENT_STATE_{found.state.name}"),
        progress=document_pb2.IndexingProgress(
            pages=found.progress.pages,
            passages=found.progress.passages,
            passages_indexed=found.progress.passages_indexed,
        ),
        user_id=str(found.user_id),
        create_time=found.create_time,
    )
    if found.failure:
        message.failure.reason = ErrorReason.Value(f"ERROR_REASON_{found.failure.reason}")
        message.failure.message = found.failure.message
    return message


def passage(found: FoundPassage) -> document_pb2.Passage:
    """The message of a passage."""
    return document_pb2.Passage(
        id=str(found.id),
        document_id=str(found.document_id),
        filename=found.filename,
        page=found.passage.page,
        headings=found.passage.headings,
        text=found.passage.text,
    )


def older_token(last: Document) -> str:
    """The page token of the documents older than `last`."""
    return page_token(last.create_time, last.id)


def before(token: str) -> tuple[datetime, UUID] | None:
    """What the documents of this page are older than; None for the first page. Raises Invalid."""
    if (key := page_key(token, 2)) is None:
        return None
    try:
        time, document_id = datetime.fromisoformat(key[0]), UUID(key[1])
        if time.tzinfo is None:
            raise foreign_token()
        return time.astimezone(UTC), document_id
    except (ValueError, OverflowError) as error:
        raise foreign_token() from error


def _out_of_order(fault: str) -> Invalid:
    return Invalid(Reason.INVALID_FIELD, f"part: {fault}", violations={"part": fault})
