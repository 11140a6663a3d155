"""`parley ingest`: uploads files, several at a time, and follows each until its passages can be found.

A file that the organisation has already is no failure: its document is followed instead. More files are followed than
are uploaded at a time, so that the mesh has the next ones before it needs them.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import typer
from grpclib.exceptions import GRPCError, StreamTerminatedError

from parley_sdk.parley.knowledge.v1 import Document, DocumentState, KnowledgeServiceStub, WatchDocumentRequest
from stack.client.account import signed_in
from stack.client.edge import INTERRUPTED, Edge, console, end, reason_of
from stack.client.lasting import Lasting, within
from stack.client.listing import visible
from stack.client.showing import Screen, counted, showing
from stack.client.uploading import Place, Unread, upload
from stack.client.walking import MAX_FILES, TooMany, find

_FOLLOWED_AT_ONCE, _UPLOADS_AT_ONCE = 16, 4
_WATCH_TIMEOUT_S = 330.0
_SILENCE_S = 30.0
"""A stream without news for so long may be dead without having said so."""
_LONGEST_WAIT_S = 1800.0
_BROKEN = "The connection to the mesh broke for too long."


async def ingest(edge: Edge, places: Sequence[Path], place: Place) -> int:
    """Ingest files, and folders with all that is in them; 1 when one failed. Cancelled (Ctrl-C), says what is done."""
    try:
        found = find(places)
    except TooMany:
        end(f"There are more than {MAX_FILES:,} files: name smaller folders.")
    if not found.files and not found.failures:
        end("There is no file in it.")
    async with signed_in(edge):
        pass  # nothing begins where there is no mesh, or nobody is signed in
    batch = _Batch(Lasting(edge), place, len(found.files), dict(found.failures))
    try:
        with showing(len(found.files)) as screen:
            async with asyncio.TaskGroup() as workers:
                waiting = iter(enumerate(found.files))
                for _ in range(_FOLLOWED_AT_ONCE):
                    workers.create_task(batch.work_off(waiting, screen))
    except asyncio.CancelledError:
        batch.report()
        end("Stopped. No document is half there: what was being uploaded is dropped.", INTERRUPTED)
    batch.report()
    return 1 if batch.failures else 0


@dataclass
class _Batch:
    """All files of one command, and what became of them."""

    mesh: Lasting
    place: Place
    files: int
    failures: dict[Path, str]
    ready: int = 0
    there: int = 0
    ended: int = 0
    uploaded: set[int] = field(default_factory=set)
    """Which the mesh has, and has not indexed yet."""
    uploading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_UPLOADS_AT_ONCE))

    async def work_off(self, waiting: Iterator[tuple[int, Path]], screen: Screen) -> None:
        for number, path in waiting:
            try:
                outcome = await self._ingest(number, path, screen)
            except GRPCError as error:
                self.failures[path] = f"{error.message} ({reason_of(error) or error.status.name})"
            except Unread as error:
                self.failures[path] = str(error)
            except (OSError, StreamTerminatedError):
                self.failures[path] = _BROKEN
            except typer.Exit:
                self.failures[path] = "Nobody is signed in any more."
            self.uploaded.discard(number)
            self.ended += 1
            screen.end(number, "failed" if path in self.failures else outcome)

    async def _ingest(self, number: int, path: Path, screen: Screen) -> str:
        """Upload and follow one file; what to say of it. What made it fail is raised, or noted."""
        screen.begin(number, str(path), _size_bytes(path))
        async with self.uploading:
            uploaded = await upload(self.mesh, path, self.place, lambda sent: screen.sent(number, sent))
        self.uploaded.add(number)
        following = _Following(uploaded.document_id, number, screen)
        document = await self.mesh.call(following.attempt, lambda: following.heard)
        if document is None:
            self.failures[path] = "The document was deleted meanwhile."
        elif failure := document.failure:
            self.failures[path] = f"{failure.message} ({failure.reason.name})"
        elif document.state is not DocumentState.INDEXED:
            self.failures[path] = f"It is uploaded, but was not indexed within {_LONGEST_WAIT_S / 60:.0f} minutes."
        else:
            self.ready += uploaded.is_new
            self.there += not uploaded.is_new
            return self._said(document, is_new=uploaded.is_new)
        return ""

    def _said(self, document: Document, *, is_new: bool) -> str:
        progress = document.progress
        parts = ((progress.passages, "passage"), (progress.pages, "page")) if progress else ()
        ready = f"ready: {', '.join(counted(count, noun) for count, noun in parts if count)}"
        if is_new:
            return ready
        elsewhere = document.collection != self.place.collection
        where = f" in {visible(document.collection) or 'no collection'}" if elsewhere else ""
        return f"already there{where}, {ready}"

    def report(self) -> None:
        """Each failure with its reason; of several files, how many became what."""
        for path, failure in self.failures.items():
            line = f"{visible(str(path))}: {failure}"
            console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)
        outcomes = (
            (self.ready, "ready"),
            (self.there, "already there"),
            (len(self.uploaded), "uploaded, the mesh goes on indexing"),
            (self.files - self.ended - len(self.uploaded), "not uploaded"),
            (len(self.failures), "failed"),
        )
        if self.files > 1 or self.ended < self.files:
            said = ", ".join(f"{count} {what}" for count, what in outcomes if count)
            console.print(said, highlight=False, markup=False)


class _Following:
    """One document until it is indexed or failed."""

    def __init__(self, document_id: str, number: int, screen: Screen) -> None:
        self._request = WatchDocumentRequest(document_id=document_id)
        self._number, self._screen = number, screen
        self._clock = asyncio.get_running_loop().time
        self._last: Document | None = None
        self._changed_s = self._clock()
        self.heard = 0

    async def attempt(self, knowledge: KnowledgeServiceStub) -> Document | None:
        """The document at its end, or as it stands after too long a time; None if it was deleted."""
        try:
            async with aclosing(self._documents(knowledge)) as documents:
                async for document in documents:
                    self.heard += 1
                    if document != self._last:
                        self._last, self._changed_s = document, self._clock()
                    if document.state in (DocumentState.INDEXED, DocumentState.FAILED):
                        return document
                    self._screen.stands(self._number, document)
                    if self._clock() - self._changed_s > _LONGEST_WAIT_S:
                        return document
        except GRPCError as error:
            if reason_of(error) == "DOCUMENT_NOT_FOUND":
                return None
            raise
        raise TimeoutError  # the stream ended before the document did: again

    async def _documents(self, knowledge: KnowledgeServiceStub) -> AsyncGenerator[Document, None]:
        watched = knowledge.watch_document(self._request, timeout=_WATCH_TIMEOUT_S)
        async for response in within(_SILENCE_S, watched):
            assert response.document
            yield response.document


def _size_bytes(path: Path) -> int:
    """0 for one that has gone; reading it says so."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
