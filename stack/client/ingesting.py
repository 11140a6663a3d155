"""`parley ingest`: uploads files and follows each until its passages can be found.

A file that the organisation has already is no failure: its document is followed instead.
"""

import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grpclib.client import Channel
from grpclib.exceptions import GRPCError
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from parley_sdk.parley.knowledge.v1 import (
    Document,
    DocumentState,
    KnowledgeServiceStub,
    UploadDocumentRequest,
    UploadedFile,
    Visibility,
    WatchDocumentRequest,
)
from stack.client.account import signed_in
from stack.client.edge import Edge, console, fact_of, reason_of

_CHUNK_BYTES = 256 * 1024
_UPLOAD_TIMEOUT_S = 600.0
_NAME_COLUMNS = 28  # of the 80 that a terminal has at least
_INDEX_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Place:
    """Where the documents go."""

    collection: str = ""
    is_private: bool = False


async def ingest(edge: Edge, files: Sequence[Path], place: Place) -> int:
    """Ingest every file; 1 when one of them failed."""
    failures: list[str] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[name]}"),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[step]}"),
    )
    async with signed_in(edge) as (channel, metadata):
        with Progress(*columns, console=console) as progress:
            for path in files:
                bar = progress.add_task(
                    "", name=_shortened(path.name), step="uploading", total=max(path.stat().st_size, 1)
                )
                try:
                    failure = await _ingest(channel, metadata, path, place, progress, bar)
                except GRPCError as error:
                    failure = f"{error.message} ({reason_of(error) or error.status.name})"
                if failure:
                    progress.update(bar, step="failed")
                    failures.append(f"{path.name}: {failure}")
    for failure in failures:
        console.print(failure, style="red", highlight=False, markup=False, soft_wrap=True)
    return 1 if failures else 0


async def _ingest(
    channel: Channel, metadata: dict[str, str], path: Path, place: Place, progress: Progress, bar: TaskID
) -> str:
    """Upload and follow one file; what went wrong, "" if nothing did."""
    knowledge = KnowledgeServiceStub(channel, metadata=metadata)
    prefix = ""
    try:
        uploaded = await knowledge.upload_document(_upload(path, place, progress, bar), timeout=_UPLOAD_TIMEOUT_S)
        assert uploaded.document
        document_id = uploaded.document.id
    except GRPCError as error:
        if reason_of(error) != "DOCUMENT_DUPLICATE":
            raise
        document_id, prefix = fact_of(error, "document_id"), "already there, "
    request = WatchDocumentRequest(document_id=document_id)
    async for response in knowledge.watch_document(request, timeout=_INDEX_TIMEOUT_S):
        assert response.document
        _show(response.document, prefix, progress, bar)
        if response.document.state is DocumentState.INDEXED:
            return ""
        if response.document.state is DocumentState.FAILED and (failure := response.document.failure):
            return f"{failure.message} ({failure.reason.name})"
    return "The document was deleted meanwhile."


async def _upload(path: Path, place: Place, progress: Progress, bar: TaskID) -> AsyncIterator[UploadDocumentRequest]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
        file.seek(0)
        described = UploadedFile(
            request_id=str(uuid.uuid4()),
            filename=path.name,
            size_bytes=size_bytes,
            sha256=digest,
            collection=place.collection,
            visibility=Visibility.PRIVATE if place.is_private else Visibility.ORGANISATION,
        )
        yield UploadDocumentRequest(file=described)
        while chunk := file.read(_CHUNK_BYTES):
            yield UploadDocumentRequest(chunk=chunk)
            progress.advance(bar, len(chunk))


def _show(document: Document, prefix: str, progress: Progress, bar: TaskID) -> None:
    done = document.progress.passages_indexed if document.progress else 0
    passages = document.progress.passages if document.progress else 0
    pages = document.progress.pages if document.progress else 0
    whole = ", ".join(_counted(count, noun) for count, noun in ((passages, "passage"), (pages, "page")) if count)
    step = {
        DocumentState.QUEUED: "waiting",
        DocumentState.INDEXING: f"indexing, {done} of {passages} passages" if passages else "reading",
        DocumentState.INDEXED: f"ready: {whole}",
        DocumentState.FAILED: "failed",
    }.get(document.state, "")
    progress.update(bar, total=passages or None, completed=done, step=f"{prefix}{step}")


def _shortened(name: str) -> str:
    """A name that leaves room for the rest of its line; its end says what it is."""
    return name if len(name) <= _NAME_COLUMNS else f"{name[: _NAME_COLUMNS - 10]}…{name[-9:]}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
