"""The RPCs of parley.knowledge.v1, and what is done on its events."""

from collections.abc import AsyncIterator
from typing import TypeAlias
from uuid import UUID

import grpc

from parley.knowledge.v1.faq_service_pb2 import (
    CreateFaqRequest,
    CreateFaqResponse,
    DeleteFaqRequest,
    DeleteFaqResponse,
    GetFaqRequest,
    GetFaqResponse,
    ListFaqsRequest,
    ListFaqsResponse,
    UpdateFaqRequest,
    UpdateFaqResponse,
)
from parley.knowledge.v1.faq_service_pb2_grpc import FaqServiceServicer
from parley.knowledge.v1.knowledge_events_pb2 import DocumentDeleted, DocumentUploaded
from parley.knowledge.v1.knowledge_service_pb2 import (
    AppendUploadRequest,
    AppendUploadResponse,
    CreateUploadRequest,
    CreateUploadResponse,
    DeleteDocumentRequest,
    DeleteDocumentResponse,
    FinishUploadRequest,
    FinishUploadResponse,
    GetDocumentRequest,
    GetDocumentResponse,
    ListCollectionsRequest,
    ListCollectionsResponse,
    ListDocumentsRequest,
    ListDocumentsResponse,
    SearchRequest,
    SearchResponse,
    UpdateDocumentRequest,
    UpdateDocumentResponse,
    UploadDocumentRequest,
    UploadDocumentResponse,
    WatchDocumentRequest,
    WatchDocumentResponse,
)
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceServicer
from services.knowledge import document, wire
from services.knowledge.crawl import handlers as crawl_handlers
from services.knowledge.document import Documents, Member
from services.knowledge.faqs import faq
from services.knowledge.faqs import wire as faq_wire
from services.knowledge.faqs.faq import Curation, Faqs
from services.knowledge.faqs.matching import Matching
from services.knowledge.indexing import Indexing
from services.knowledge.search import Search
from services.knowledge.upload import Reception
from services.knowledge.watch import Watch
from services.shared.events.consumer import Event
from services.shared.pages import DEFAULT_SIZE
from services.shared.serving.identity import caller_of
from services.shared.serving.interceptor import CallRules

_ENDLESS = frozenset({"/parley.knowledge.v1.KnowledgeService/WatchDocument"})
RULES = CallRules(endless_methods=_ENDLESS | crawl_handlers.ENDLESS)
CrawlService = crawl_handlers.CrawlService
_DEFAULT_PASSAGES = 5
Context: TypeAlias = grpc.aio.ServicerContext


class KnowledgeService(KnowledgeServiceServicer):
    """The documents of the caller's organisation."""

    def __init__(
        self, documents: Documents, reception: Reception, search: Search, watch: Watch, curated: Matching | None = None
    ) -> None:
        """Without `curated` no FAQ goes before what is found."""
        self._documents = documents
        self._reception = reception
        self._search = search
        self._watch = watch
        self._curated = curated

    async def UploadDocument(
        self, request: AsyncIterator[UploadDocumentRequest], context: Context
    ) -> UploadDocumentResponse:
        parts = aiter(request)
        member, file = _member(context), await wire.first_part(parts)
        received = await self._reception.receive(member, file, wire.chunks(parts))
        return UploadDocumentResponse(document=wire.document(received))

    async def CreateUpload(self, request: CreateUploadRequest, context: Context) -> CreateUploadResponse:
        upload = await self._reception.begin(_member(context), wire.file(request.file))
        return CreateUploadResponse(upload_id=str(upload.id), received_bytes=upload.received_bytes)

    async def AppendUpload(self, request: AppendUploadRequest, context: Context) -> AppendUploadResponse:
        member, upload_id = _member(context), UUID(request.upload_id)
        received_bytes = await self._reception.append(member, upload_id, request.offset_bytes, request.chunk)
        return AppendUploadResponse(received_bytes=received_bytes)

    async def FinishUpload(self, request: FinishUploadRequest, context: Context) -> FinishUploadResponse:
        finished = await self._reception.finish(_member(context), UUID(request.upload_id))
        return FinishUploadResponse(document=wire.document(finished))

    async def GetDocument(self, request: GetDocumentRequest, context: Context) -> GetDocumentResponse:
        found = await document.get(self._documents, _member(context), UUID(request.document_id))
        return GetDocumentResponse(document=wire.document(found))

    async def ListDocuments(self, request: ListDocumentsRequest, context: Context) -> ListDocumentsResponse:
        size = request.page_size or DEFAULT_SIZE
        before = wire.before(request.page_token)
        collection = request.collection if request.HasField("collection") else None
        found = await self._documents.newest(_member(context), before, size + 1, collection)
        page = found[:size]
        return ListDocumentsResponse(
            documents=map(wire.document, page),
            next_page_token=wire.older_token(page[-1]) if len(found) > size else "",
        )

    async def ListCollections(self, request: ListCollectionsRequest, context: Context) -> ListCollectionsResponse:
        size = request.page_size or DEFAULT_SIZE
        found = await self._documents.collections(_member(context), wire.after(request.page_token), size + 1)
        page = found[:size]
        return ListCollectionsResponse(
            collections=map(wire.collection, page),
            next_page_token=wire.after_token(page[-1]) if len(found) > size else "",
        )

    async def UpdateDocument(self, request: UpdateDocumentRequest, context: Context) -> UpdateDocumentResponse:
        member, document_id = _member(context), UUID(request.document.id)
        updated = await document.update(self._documents, member, document_id, wire.change(request))
        return UpdateDocumentResponse(document=wire.document(updated))

    async def DeleteDocument(self, request: DeleteDocumentRequest, context: Context) -> DeleteDocumentResponse:
        await document.delete(self._documents, _member(context), UUID(request.document_id))
        return DeleteDocumentResponse()

    async def WatchDocument(
        self, request: WatchDocumentRequest, context: Context
    ) -> AsyncIterator[WatchDocumentResponse]:
        member, expires_at_s = _member(context), caller_of(context).expires_at_s
        async for found in self._watch(member, UUID(request.document_id), expires_at_s):
            yield WatchDocumentResponse(document=wire.document(found))

    async def Search(self, request: SearchRequest, context: Context) -> SearchResponse:
        caller, limit = caller_of(context), request.limit or _DEFAULT_PASSAGES
        passages = self._search(caller.tenant_id, request.query, limit, caller.user_id)
        curated = self._curated
        found = await (curated.before(caller.tenant_id, request.query, limit, passages) if curated else passages)
        return SearchResponse(passages=map(wire.found, found))


class FaqService(FaqServiceServicer):
    """The curated answers of the caller's organisation."""

    def __init__(self, faqs: Faqs, curation: Curation) -> None:
        self._faqs = faqs
        self._curation = curation

    async def CreateFaq(self, request: CreateFaqRequest, context: Context) -> CreateFaqResponse:
        wording = faq.worded(request.question, request.alternatives, request.answer)
        created = await self._curation.create(_member(context), UUID(request.request_id), wording)
        return CreateFaqResponse(faq=faq_wire.faq(created))

    async def GetFaq(self, request: GetFaqRequest, context: Context) -> GetFaqResponse:
        found = await faq.get(self._faqs, _member(context), UUID(request.faq_id))
        return GetFaqResponse(faq=faq_wire.faq(found))

    async def ListFaqs(self, request: ListFaqsRequest, context: Context) -> ListFaqsResponse:
        size = request.page_size or DEFAULT_SIZE
        found = await self._faqs.newest(_member(context).tenant_id, wire.before(request.page_token), size + 1)
        page = found[:size]
        return ListFaqsResponse(
            faqs=map(faq_wire.faq, page), next_page_token=wire.older_token(page[-1]) if len(found) > size else ""
        )

    async def UpdateFaq(self, request: UpdateFaqRequest, context: Context) -> UpdateFaqResponse:
        updated = await self._curation.update(_member(context), UUID(request.faq.id), faq_wire.change(request))
        return UpdateFaqResponse(faq=faq_wire.faq(updated))

    async def DeleteFaq(self, request: DeleteFaqRequest, context: Context) -> DeleteFaqResponse:
        await self._curation.delete(_member(context), UUID(request.faq_id))
        return DeleteFaqResponse()


class DocumentEvents:
    """What this service does on its own events, for the durable consumers; every method may be repeated."""

    def __init__(self, indexing: Indexing) -> None:
        self._indexing = indexing

    async def index(self, event: Event) -> None:
        uploaded = DocumentUploaded.FromString(event.payload)
        await self._indexing.index(event.tenant_id, UUID(uploaded.document_id))

    async def give_up_indexing(self, event: Event) -> None:
        uploaded = DocumentUploaded.FromString(event.payload)
        await self._indexing.give_up(event.tenant_id, UUID(uploaded.document_id))

    async def remove(self, event: Event) -> None:
        deleted = DocumentDeleted.FromString(event.payload)
        await self._indexing.remove(event.tenant_id, UUID(deleted.document_id))


def _member(context: Context) -> Member:
    caller = caller_of(context)
    return Member(caller.tenant_id, caller.user_id, caller.role)
