"""Wiring of the knowledge service."""

import os
from functools import partial
from pathlib import Path

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read at gRPC's import; the only children we start exec at once

from parley.knowledge.v1.crawl_service_pb2_grpc import add_CrawlServiceServicer_to_server
from parley.knowledge.v1.faq_service_pb2_grpc import add_FaqServiceServicer_to_server
from parley.knowledge.v1.index_service_pb2_grpc import add_IndexServiceServicer_to_server
from parley.knowledge.v1.knowledge_service_pb2_grpc import add_KnowledgeServiceServicer_to_server
from services.knowledge import metrics
from services.knowledge.crawl.handlers import CrawlEvents, CrawlService
from services.knowledge.crawl.pace import Pace
from services.knowledge.crawl.reading import LinkProcess
from services.knowledge.crawl.settle import Settling
from services.knowledge.crawl.store import StoredCrawls
from services.knowledge.crawl.visit import Visits
from services.knowledge.crawl.watch import CrawlWatch
from services.knowledge.crawl.web import GuardedWeb
from services.knowledge.crawl.work import Crawling
from services.knowledge.embedding import EmbeddingModel
from services.knowledge.faqs.faq import Curation
from services.knowledge.faqs.learning import keep_learning
from services.knowledge.faqs.matching import Matching
from services.knowledge.faqs.phrasings import PhrasingTable
from services.knowledge.faqs.store import StoredFaqs
from services.knowledge.forked import ForkedExtraction
from services.knowledge.handlers import RULES, DocumentEvents, FaqService, KnowledgeService
from services.knowledge.index import PassageIndexes
from services.knowledge.indexes.copying import Copying
from services.knowledge.indexes.handlers import IndexService
from services.knowledge.indexes.live import Indexes
from services.knowledge.indexes.rebuild import Rebuild
from services.knowledge.indexes.rebuilding import Rebuilding
from services.knowledge.indexes.reconcile import Reconcile
from services.knowledge.indexes.rereading import Rereading
from services.knowledge.indexes.store import StoredIndexes
from services.knowledge.indexes.version import Index, IndexVersion
from services.knowledge.indexing import Indexing
from services.knowledge.placing import Placing
from services.knowledge.rerank_model import RerankModel
from services.knowledge.reranking import Reranking
from services.knowledge.search import Search
from services.knowledge.settings import Settings
from services.knowledge.storage import StoredOriginals
from services.knowledge.store import StoredDocuments, StoredUploads
from services.knowledge.sweep import sweep
from services.knowledge.upload import Quota, Reception
from services.knowledge.vocabulary import Vocabulary
from services.knowledge.watch import Watch
from services.shared.background import background
from services.shared.events.bus import Bus
from services.shared.events.consumer import Consumer
from services.shared.events.relay import Relay
from services.shared.outbound.addresses import Addresses
from services.shared.outbound.client import Outbound
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.serving.server import NATS_ADVICE, POSTGRES_ADVICE, Check, Service, run
from services.shared.serving.settings import read_settings
from services.shared.serving.tls import ssl_context

RERANK_ADVICE = "Load the model that PARLEY_RERANK_MODEL names into Triton; see models/README.md."
# What reading the links of one page may cost.
_LINKS_MEMORY_BYTES, _LINKS_CPU_S, _LINKS_WALL_S = 1024 * 1024 * 1024, 10, 20.0


def wire() -> Service:
    settings = read_settings(Settings)
    database = Database(settings.postgres_dsn, settings.postgres_password_file, Path(__file__).parent)
    listener = Listener(database, "knowledge")
    bus = Bus(settings.nats_url, ssl_context(settings), "knowledge")
    relay = Relay(database, listener, bus)
    originals, stores = StoredOriginals(settings), PassageIndexes(settings.milvus_url)
    embedding = EmbeddingModel(settings.triton_address, settings.embedding_model, settings)
    record = StoredIndexes(database, settings.embedding_model, settings.embedding_dimensions)

    def opened(version: IndexVersion) -> Index:
        return Index(version, embedding.named(version.embedding_model), stores.of(version))

    indexes = Indexes(record, opened, listener)

    async def answers() -> None:
        await stores.probe()
        await indexes.probe()

    quota = Quota(settings.quota_documents, settings.quota_bytes)
    documents, uploads = StoredDocuments(database), StoredUploads(database, quota)
    faqs = StoredFaqs(database, settings.embedding_model, settings.quota_faqs)
    placing, copying = Placing(documents, indexes), Copying(record)
    extraction = _extraction(settings)
    indexer = Indexing(documents, originals, extraction, indexes, placing, copying)
    events = DocumentEvents(indexer, placing)
    rereading = Rereading(record, originals, extraction, indexes, copying)
    rebuild = Rebuild(record, stores, indexes, placing, copying, rereading, listener)
    reconcile = Reconcile(record, indexes, originals, rebuild)
    workers = settings.indexing_workers
    indexing = Consumer(bus, "knowledge-indexing", events.index, events.give_up_indexing, parallel=workers)
    # A removal or a change of place is never given up: what is left behind could be found, or not be found.
    removal = Consumer(bus, "knowledge-removal", events.remove, events.remove)
    places = Consumer(bus, "knowledge-placing", events.place, events.place)
    operating = IndexService(Rebuilding(record, embedding, listener), reconcile)
    reranker = _reranker(settings)
    reranking = Reranking(reranker, settings.rerank_timeout_s, metrics.reranked) if reranker else None
    search = Search(indexes, Vocabulary(documents), documents, reranking)
    watch = Watch(documents, listener)
    curated = Matching(faqs, embedding, PhrasingTable())
    reception = Reception(uploads, originals)
    handler = KnowledgeService(documents, reception, search, watch, curated)
    addresses = Addresses(settings.crawl_allowed_addresses)
    outbound, crawls = Outbound(addresses), StoredCrawls(database)
    settling, links = Settling(crawls, documents), LinkProcess(_LINKS_MEMORY_BYTES, _LINKS_CPU_S, _LINKS_WALL_S)
    web, pace = GuardedWeb(outbound), Pace(settings.crawl_delay_s)
    visits = Visits(crawls, documents, reception, web, links, pace, settling)
    crawled = CrawlEvents(Crawling(crawls, visits, web), settling)
    crawling = Consumer(bus, "knowledge-crawling", crawled.work, crawled.give_up, parallel=settings.crawl_workers)
    # Not given up either: a page would wait for its document for ever.
    settled = Consumer(bus, "knowledge-crawled", crawled.settle, crawled.settle)
    crawl_handler = CrawlService(crawls, documents, CrawlWatch(crawls, listener), addresses.check)
    return Service(
        name="knowledge",
        settings=settings,
        register=[
            partial(add_KnowledgeServiceServicer_to_server, handler),
            partial(add_FaqServiceServicer_to_server, FaqService(faqs, Curation(faqs, embedding))),
            partial(add_CrawlServiceServicer_to_server, crawl_handler),
            partial(add_IndexServiceServicer_to_server, operating),
        ],
        proto_services=[f"parley.knowledge.v1.{name}Service" for name in ("Knowledge", "Faq", "Crawl", "Index")],
        rules=RULES,
        resources=[
            *(database, listener.running(), bus.running(), relay.running()),
            *(extraction, stores, embedding),
            *(background(indexes.follow), background(rebuild.run), background(stores.keep_warm)),
            *(indexing.running(), removal.running(), places.running()),
            *([reranker] if reranker else []),
            *(outbound, crawling.running(), settled.running()),
            *(background(partial(sweep, uploads, originals)), background(reconcile.run)),
            background(partial(keep_learning, faqs, embedding)),
        ],
        checks=[
            Check("PostgreSQL", database.probe, POSTGRES_ADVICE),
            Check("NATS", bus.probe, NATS_ADVICE, needed=False),
            Check("Milvus", answers, "Start Milvus and check PARLEY_MILVUS_URL."),
            Check("S3", originals.probe, "Start the S3 store, create the bucket, check PARLEY_S3_* and the key files."),
            Check("libseccomp", extraction.probe, "Install libseccomp (Debian: apt install libseccomp2)."),
            Check("Triton", embedding.probe, "Start Triton and check PARLEY_TRITON_ADDRESS.", needed=False),
            *([Check("rerank model", reranker.probe, RERANK_ADVICE, needed=False)] if reranker else []),
        ],
    )


def _reranker(settings: Settings) -> RerankModel | None:
    if not settings.rerank_model:
        return None
    return RerankModel(settings.triton_address, settings.rerank_model, settings, settings.rerank_timeout_s)


def _extraction(settings: Settings) -> ForkedExtraction:
    return ForkedExtraction(settings.extraction_memory_bytes, settings.extraction_cpu_s, settings.extraction_wall_s)


if __name__ == "__main__":
    run("knowledge", wire)
