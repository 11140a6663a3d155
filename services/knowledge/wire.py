"""Between proto messages and domain values: files, documents, passages, page tokens."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

from parley.errors.v1.error_reason_pb2 import ErrorReason
from parley.knowledge.v1 import document_pb2
from parley.knowledge.v1.knowledge_service_pb2 import (
    UpdateDocumentRequest,
    UploadDocumentRequest,
    UploadedFile,
)
from services.knowledge.document import Change, Collection, Document, File, Visibility
from services.knowledge.faqs.faq import Faq
from services.knowledge.faqs.matching import FoundFaq
from services.knowledge.faqs.wire import found_faq
from services.knowledge.search import FoundPassage
from services.shared.errors import Invalid, Reason
from services.shared.pages import foreign_token, page_key, page_token


def file(announced: UploadedFile) -> File:
    """What a client says of a file."""
    return File(
        UUID(announced.request_id),
        announced.filename,
        announced.size_bytes,
        announced.sha256,
        announced.collection,
        _visibility(announced.visibility) or Visibility.ORGANISATION,
        announced.allow_duplicate,
    )


def change(request: UpdateDocumentRequest) -> Change:
    """What an update names. Raises Invalid."""
    collection, visibility = request.document.collection, _visibility(request.document.visibility)
    if not request.HasField("update_mask"):
        return Change(collection or None, visibility)
    named = request.update_mask.paths
    if "visibility" in named and visibility is None:
        fault = "say who shall see the document"
        raise Invalid(Reason.INVALID_FIELD, f"document.visibility: {fault}", violations={"document.visibility": fault})
    return Change(collection if "collection" in named else None, visibility if "visibility" in named else None)


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
        collection=found.file.collection,
        visibility=document_pb2.Visibility.Value(f"VISIBILITY_{found.file.visibility.name}"),
        source_url=found.file.source_url,
    )
    if found.failure:
        message.failure.reason = ErrorReason.Value(f"ERROR_REASON_{found.failure.reason}")
        message.failure.message = found.failure.message
    return message


def collection(found: Collection) -> document_pb2.Collection:
    """The message of a collection."""
    return document_pb2.Collection(name=found.name, documents=found.documents)


def found(found: FoundFaq | FoundPassage) -> document_pb2.Passage:
    """The message of what a search found."""
    return found_faq(found) if isinstance(found, FoundFaq) else passage(found)


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


def older_token(last: Document | Faq) -> str:
    """The page token of those older than `last`."""
    return page_token(last.create_time, last.id)


def before(token: str) -> tuple[datetime, UUID] | None:
    """What those of this page are older than; None for the first page. Raises Invalid."""
    if (key := page_key(token, 2)) is None:
        return None
    try:
        time, document_id = datetime.fromisoformat(key[0]), UUID(key[1])
        if time.tzinfo is None:
            raise foreign_token()
        return time.astimezone(UTC), document_id
    except (ValueError, OverflowError) as error:
        raise foreign_token() from error


def after(token: str) -> str | None:
    """The name that the collections of this page come after; None for the first page. Raises Invalid."""
    if (key := page_key(token, 1)) is None:
        return None
    if "\0" in key[0] or any(0xD800 <= ord(character) <= 0xDFFF for character in key[0]):
        raise foreign_token()  # no name that the record can hold
    return key[0]


def after_token(last: Collection) -> str:
    """The page token of the collections after `last`."""
    return page_token(last.name)


def _visibility(named: document_pb2.Visibility) -> Visibility | None:
    return {
        document_pb2.VISIBILITY_PRIVATE: Visibility.PRIVATE,
        document_pb2.VISIBILITY_ORGANISATION: Visibility.ORGANISATION,
    }.get(named)


def _out_of_order(fault: str) -> Invalid:
    return Invalid(Reason.INVALID_FIELD, f"part: {fault}", violations={"part": fault})
