"""`parley documents`: what the signed-in user sees, and what may be done with it."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from parley_sdk.parley.knowledge.v1 import (
    DeleteDocumentRequest,
    Document,
    KnowledgeServiceStub,
    ListDocumentsRequest,
    UpdateDocumentRequest,
    Visibility,
)
from stack.client.account import signed_in
from stack.client.edge import CALL_TIMEOUT_S, Edge, console

_PAGE_SIZE = 100


async def show(edge: Edge, collection: str | None) -> int:
    """Print every document, page by page."""
    failures: list[str] = []
    table = Table(box=None, pad_edge=False)
    for heading in ("Document", "Collection", "State", "Id"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "Id")
    async with signed_in(edge) as (channel, metadata):
        knowledge, token = KnowledgeServiceStub(channel, metadata=metadata), ""
        while True:
            request = ListDocumentsRequest(page_size=_PAGE_SIZE, page_token=token, collection=collection)
            page = await knowledge.list_documents(request, timeout=CALL_TIMEOUT_S)
            for document in page.documents:
                table.add_row(*(Text(visible(cell)) for cell in _cells(document)))
                if failure := document.failure:
                    failures.append(f"{visible(document.filename)}: {failure.message} ({failure.reason.name})")
            if not (token := page.next_page_token):
                break
    if table.row_count:
        console.print(table)
        for line in failures:
            console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)
    else:
        console.print("There is no document: `parley ingest` puts one in.", highlight=False)
    return 0


async def change(edge: Edge, delete: Sequence[str], share: Sequence[str], unshare: Sequence[str]) -> int:
    """Delete, share and unshare documents; the first refusal ends it."""
    async with signed_in(edge) as (channel, metadata):
        knowledge = KnowledgeServiceStub(channel, metadata=metadata)
        for ids, visibility, whose in (
            (share, Visibility.ORGANISATION, "shared"),
            (unshare, Visibility.PRIVATE, "yours alone"),
        ):
            for document_id in ids:
                request = UpdateDocumentRequest(document=Document(id=document_id, visibility=visibility))
                await knowledge.update_document(request, timeout=CALL_TIMEOUT_S)
                console.print(f"{document_id}: {whose}", highlight=False)
        for document_id in delete:
            await knowledge.delete_document(DeleteDocumentRequest(document_id=document_id), timeout=CALL_TIMEOUT_S)
            console.print(f"{document_id}: deleted", highlight=False)
    return 0


def _cells(document: Document) -> tuple[str, str, str, str]:
    state = (document.state.name or "").lower()
    if document.visibility is Visibility.PRIVATE:
        state = f"{state}, private"
    return document.filename, document.collection, state, document.id


def visible(text: str) -> str:
    """Names come from other people: what a terminal would obey or turn around is shown as a box."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
