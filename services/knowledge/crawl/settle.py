"""How the new document of a page ended: it takes the place of the old one, or the page failed with its reason.

Told by the events of documents, each of which may come twice and late; every step may be repeated.
"""

from typing import Protocol
from uuid import UUID

from services.knowledge.crawl.crawl import Crawl, Page
from services.knowledge.crawl.visit import Documents
from services.knowledge.document import DocumentState, Failure


class AwaitedPages(Protocol):
    """The record of pages and their documents."""

    async def find_page_of(self, tenant_id: UUID, document_id: UUID) -> tuple[Crawl, Page] | None:
        """The page that waits for this document."""

    async def replace_document(self, crawl: Crawl, page: Page, document_id: UUID) -> None:
        """The page's document is this one from now on."""

    async def fail_document(self, crawl: Crawl, page: Page, document_id: UUID, failure: Failure) -> None:
        """The page failed and keeps the document that it had before."""

    async def forget_document(self, tenant_id: UUID, document_id: UUID) -> Crawl | None:
        """The page's document is gone, and nothing is known of the page's content; the crawl, if there is a page."""

    async def complete(self, crawl: Crawl) -> None:
        """INDEXING -> DONE, once no page is being indexed."""


class Settling:
    """Implements visit.Settle."""

    def __init__(self, pages: AwaitedPages, documents: Documents) -> None:
        self._pages = pages
        self._documents = documents

    async def settle(self, tenant_id: UUID, document_id: UUID) -> None:
        """Nothing if the document is still on its way, or no page waits for it."""
        if (found := await self._pages.find_page_of(tenant_id, document_id)) is None:
            return
        crawl, page = found
        document = await self._documents.find(tenant_id, document_id)
        if document is None:
            await self._pages.forget_document(tenant_id, document_id)
        elif document.state is DocumentState.INDEXED:
            # The old one goes first: after a crash between the two it is not found again, and this one is.
            if page.document_id and (old := await self._documents.find(tenant_id, page.document_id)):
                await self._documents.delete(crawl.maker, old)
            await self._pages.replace_document(crawl, page, document_id)
        elif document.state is DocumentState.FAILED and document.failure:
            await self._pages.fail_document(crawl, page, document_id, document.failure)
            await self._documents.delete(crawl.maker, document)
        else:
            return
        await self._pages.complete(crawl)

    async def forget(self, tenant_id: UUID, document_id: UUID) -> None:
        """Somebody deleted a document: its page, if it has one, is read anew by the next crawl."""
        if crawl := await self._pages.forget_document(tenant_id, document_id):
            await self._pages.complete(crawl)
