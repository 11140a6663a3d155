"""Makes JetStream hold what streams.py declares.

The operator of the mesh runs it: `python -m services.shared.events.declare`. Takes PARLEY_NATS_URL and the operator's
PARLEY_TLS_* files. Running it again changes only what differs.
"""

import asyncio
from dataclasses import dataclass

import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from services.shared.events.streams import DUPLICATE_WINDOW_S, DURABLES, MAX_AGE_S, STREAM, SUBJECTS, subject_of
from services.shared.serving.settings import TlsSettings, read_settings
from services.shared.serving.tls import ssl_context


@dataclass(frozen=True, kw_only=True)
class Settings(TlsSettings):
    """Where NATS is, and the operator's certificate."""

    nats_url: str
    stream_replicas: int = 1


async def declare(settings: Settings) -> None:
    """Create or update the stream and every durable consumer."""
    tls = ssl_context(settings)
    client = await nats.connect(settings.nats_url, tls=tls, tls_hostname="nats" if tls else None)
    try:
        jetstream = client.jetstream(timeout=10)
        stream = StreamConfig(
            name=STREAM,
            subjects=list(SUBJECTS),
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=MAX_AGE_S,
            duplicate_window=DUPLICATE_WINDOW_S,
            num_replicas=settings.stream_replicas,
        )
        try:
            await jetstream.update_stream(stream)
        except NotFoundError:
            await jetstream.add_stream(stream)
        for durable in DURABLES:
            consumer = ConsumerConfig(
                durable_name=durable.name,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=durable.ack_wait_s,
                max_deliver=-1,  # the consumer itself gives up, and only after it could say so
                filter_subjects=[subject_of(event_type) for event_type in durable.event_types],
            )
            await jetstream.add_consumer(STREAM, consumer)
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(declare(read_settings(Settings)))
