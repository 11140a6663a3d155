"""What knowledge is told at start: PARLEY_* variables, see services/shared/serving/settings.py."""

from dataclasses import dataclass
from pathlib import Path

from services.shared.serving.settings import ServingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServingSettings):
    """Addresses are host:port, URLs have a scheme. The certificate is shown to NATS and Triton too."""

    postgres_dsn: str
    postgres_password_file: Path | None = None
    nats_url: str
    triton_address: str
    embedding_model: str = "embedding"
    milvus_url: str
    s3_endpoint: str
    s3_bucket: str
    s3_region: str = "local"
    s3_access_key_file: Path
    s3_secret_key_file: Path
    # What one organisation may have; unfinished uploads count.
    quota_documents: int = 100_000
    quota_bytes: int = 100 * 1024 * 1024 * 1024
    quota_faqs: int = 5_000
    # Documents that one process indexes at a time.
    indexing_workers: int = 2
    # What reading one document may cost: address space, processor time and time on the clock.
    extraction_memory_bytes: int = 1024 * 1024 * 1024
    extraction_cpu_s: int = 20
    extraction_wall_s: float = 60.0
    # Crawls that one process works on at a time, and the least time between two requests to one host.
    crawl_workers: int = 4
    crawl_delay_s: float = 0.25
    # Addresses that crawls may ask besides the public internet, such as an intranet's: 10.1.0.0/16, 10.1.2.3:8080.
    crawl_allowed_addresses: tuple[str, ...] = ()
