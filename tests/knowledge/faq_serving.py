"""FAQs behind a real server, on a real record; replicas share the record alone."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

from parley.knowledge.v1.document_pb2 import Passage
from parley.knowledge.v1.faq_pb2 import Faq
from parley.knowledge.v1.faq_service_pb2 import CreateFaqRequest, ListFaqsRequest
from parley.knowledge.v1.faq_service_pb2_grpc import FaqServiceStub, add_FaqServiceServicer_to_server
from parley.knowledge.v1.knowledge_service_pb2 import SearchRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub, add_KnowledgeServiceServicer_to_server
from services.knowledge.faqs.faq import Curation
from services.knowledge.faqs.matching import Matching
from services.knowledge.faqs.phrasings import PhrasingTable
from services.knowledge.faqs.store import StoredFaqs
from services.knowledge.handlers import FaqService, KnowledgeService
from services.knowledge.search import Search
from services.knowledge.upload import Reception
from services.knowledge.vocabulary import Vocabulary
from services.knowledge.watch import Watch
from services.shared.postgres.database import Database
from tests.conftest import ServeLocally, Signer
from tests.knowledge.fakes import FakeChanges, FakeEmbedding, FakeIndex, FakeOriginals, FakeRecord

LIMIT = 10
MODEL = "embedding"


@dataclass
class Replica:
    """One process of the service, and its clients. `tenant` is the organisation that is asked for unless told."""

    faqs: FaqServiceStub
    knowledge: KnowledgeServiceStub
    embedding: FakeEmbedding
    store: StoredFaqs
    signer: Signer
    tenant: UUID
    user: UUID

    def me(self, role: str = "admin", **claims: object) -> dict[str, object]:
        named = {"tenant": self.tenant, "user": self.user, "role": role} | claims
        return {"metadata": self.signer.metadata(**named), "timeout": 10}

    async def create(self, question: str, *also: str, answer: str = "An answer.", **claims: object) -> Faq:
        request = CreateFaqRequest(request_id=str(uuid4()), question=question, alternatives=also, answer=answer)
        return (await self.faqs.CreateFaq(request, **self.me(**claims))).faq

    async def search(self, query: str, limit: int = 5, **claims: object) -> Sequence[Passage]:
        response = await self.knowledge.Search(
            SearchRequest(query=query, limit=limit), **self.me(**{"role": "member"} | claims)
        )
        return response.passages

    async def found(self, query: str, **claims: object) -> str:
        """The id of the FAQ that answers first; empty when none does."""
        found = await self.search(query, **claims)
        assert not any(passage.faq_id for passage in found[1:])
        return found[0].faq_id if found else ""

    async def listed(self, **claims: object) -> list[str]:
        page = await self.faqs.ListFaqs(ListFaqsRequest(), **self.me(**{"role": "member"} | claims))
        return [faq.question for faq in page.faqs]


async def a_replica(
    database: Database, serve_locally: ServeLocally, signer: Signer, stack: AsyncExitStack, tenant: UUID, user: UUID
) -> Replica:
    """Stopped by `stack`."""
    record, embedding = FakeRecord(FakeChanges()), FakeEmbedding()
    store = StoredFaqs(database, MODEL, LIMIT)
    search, watch = Search(embedding, FakeIndex(), Vocabulary(record), record), Watch(record, FakeChanges())
    curated = Matching(store, embedding, PhrasingTable())
    documents = KnowledgeService(record, Reception(record, FakeOriginals()), search, watch, curated)
    channel = await stack.enter_async_context(
        serve_locally(
            partial(add_KnowledgeServiceServicer_to_server, documents),
            partial(add_FaqServiceServicer_to_server, FaqService(store, Curation(store, embedding))),
        )
    )
    return Replica(FaqServiceStub(channel), KnowledgeServiceStub(channel), embedding, store, signer, tenant, user)
