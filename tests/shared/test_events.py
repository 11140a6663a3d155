"""From the outbox to the effect, on real PostgreSQL and real NATS JetStream with the certificates of the mesh.

The effect is a row of `tally` per event; nothing but the inbox keeps it from happening twice.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from parley.knowledge.v1.knowledge_events_pb2 import DocumentIndexed
from services.shared.events.bus import Bus
from services.shared.events.consumer import Consumer, Event
from services.shared.events.declare import Settings as DeclareSettings
from services.shared.events.declare import declare
from services.shared.events.relay import Relay
from services.shared.events.streams import MAX_DELIVERIES, STREAM, subject_of
from services.shared.postgres.database import Database
from services.shared.postgres.listener import Listener
from services.shared.serving.settings import ServingSettings
from services.shared.serving.tls import ssl_context
from stack import authority, nats
from stack.catalog import running
from stack.mesh import Mesh, Options, open_mesh

INDEXED = "parley.knowledge.v1.DocumentIndexed"
FEED = "notification-feed"
SOON = 0.02


def bus_of(mesh: Mesh, holder: str) -> Bus:
    """A service's own connection."""
    settings = ServingSettings(
        listen_address="",
        metrics_address="",
        jwks_file=mesh.ca_file,
        tls_ca_file=mesh.ca_file,
        tls_cert_file=mesh.cert_file(holder),
        tls_key_file=mesh.key_file(holder),
    )
    return Bus(f"tls://{mesh.address('nats')}", ssl_context(settings), holder)


@dataclass
class Events:
    """The knowledge service publishes, the notification service consumes, and a database counts for both."""

    mesh: Mesh
    tally: Database
    opened: AsyncExitStack
    tenant: UUID = field(default_factory=uuid4)
    deliveries: list[UUID] = field(default_factory=list)
    parked: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    handled: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    async def publish(self, document_id: UUID, *numbers: int) -> None:
        """Write the events into the outbox, in this order."""
        payloads = [
            DocumentIndexed(document_id=str(document_id), passages=number).SerializeToString() for number in numbers
        ]
        await self.tally.one("publish", INDEXED, self.tenant, document_id, payloads)

    async def relay(self, replicas: int = 1) -> None:
        for _ in range(replicas):
            listener, bus = Listener(self.tally, "tally"), bus_of(self.mesh, "knowledge")
            await self.opened.enter_async_context(listener.running())
            await self.opened.enter_async_context(bus.running())
            await self.opened.enter_async_context(Relay(self.tally, listener, bus).running())

    async def consume(
        self, before: Callable[[Event], None] | None = None, after: Callable[[Event], None] | None = None
    ) -> None:
        """Count each event; `before` and `after` its effect is where tests make things go wrong."""

        async def handle(event: Event) -> None:
            self.deliveries.append(event.id)
            if before:
                before(event)
            await self.take(event)
            if after:
                after(event)
            self.handled.put_nowait(event)

        bus = bus_of(self.mesh, "notification")
        await self.opened.enter_async_context(bus.running())
        consumer = Consumer(bus, FEED, handle, self.parked.put, retry_delay_s=lambda _: SOON, fetch_wait_s=0.5)
        await self.opened.enter_async_context(consumer.running())

    async def take(self, event: Event) -> None:
        """The effect and its inbox row, in one statement."""
        indexed = DocumentIndexed.FromString(event.payload)
        await self.tally.one("take", event.id, event.tenant_id, UUID(indexed.document_id), indexed.passages)

    async def until_handled(self, count: int) -> None:
        async with asyncio.timeout(20):
            for _ in range(count):
                await self.handled.get()

    async def effects(self) -> list[tuple[UUID, int]]:
        return [(row["document_id"], row["number"]) for row in await self.tally.all("effects", self.tenant)]

    async def operate(self, work: Callable[[object], Awaitable[object]]) -> object:
        """Do something to JetStream as the operator."""
        client = await nats.connect(self.mesh)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    async def stored(self) -> int:
        info = await self.operate(lambda jetstream: jetstream.stream_info(STREAM))
        return info.state.messages

    async def unsettled(self) -> int:
        """How many events the consumer has yet to acknowledge."""
        info = await self.operate(lambda jetstream: jetstream.consumer_info(STREAM, FEED))
        return info.num_pending + info.num_ack_pending


@pytest.fixture
async def events(nats_mesh: Mesh, tally: Database) -> AsyncIterator[Events]:
    async with AsyncExitStack() as opened:
        events = Events(nats_mesh, tally, opened)
        await events.operate(lambda jetstream: jetstream.purge_stream(STREAM))
        yield events


async def test_an_event_arrives_as_it_was_written(events: Events) -> None:
    await events.relay()
    await events.consume()
    document_id = uuid4()
    await events.publish(document_id, 7)
    async with asyncio.timeout(10):
        event = await events.handled.get()
    (row,) = await events.tally.all("outbox", events.tenant)
    assert event == Event(row["id"], INDEXED, events.tenant, row["create_time"], row["payload"])


async def test_an_event_that_comes_again_takes_effect_once(events: Events) -> None:
    failed: set[UUID] = set()

    def fail_once(event: Event) -> None:
        if event.id not in failed:
            failed.add(event.id)
            raise ConnectionResetError("between the effect and its acknowledgement")

    await events.relay()
    await events.consume(after=fail_once)
    document_id = uuid4()
    await events.publish(document_id, *range(20))
    await events.until_handled(20)
    assert len(events.deliveries) == 40
    assert sorted(await events.effects()) == [(document_id, number) for number in range(20)]


async def test_two_consumers_of_one_service_share_the_work(events: Events) -> None:
    await events.relay()
    await events.consume()
    await events.consume()
    document_id = uuid4()
    await events.publish(document_id, *range(30))
    await events.until_handled(30)
    assert sorted(await events.effects()) == [(document_id, number) for number in range(30)]


async def test_what_is_published_twice_is_stored_once(events: Events) -> None:
    await events.relay()
    await events.consume()
    await events.publish(uuid4(), *range(10))
    await events.until_handled(10)
    await events.tally.one("publish_again", events.tenant)  # as after a crash between publishing and noting it
    await _published(events)
    await events.publish(uuid4(), 99)
    await events.until_handled(1)
    assert await events.stored() == 11
    assert len(await events.effects()) == len(events.deliveries) == 11


async def _published(events: Events) -> None:
    async with asyncio.timeout(10):
        while (await events.tally.one("unpublished", events.tenant))["count"]:
            await asyncio.sleep(0.01)


async def test_order_is_kept_per_aggregate_while_replicas_relay_together(events: Events) -> None:
    await events.relay(replicas=2)
    await events.consume()
    documents = [uuid4() for _ in range(5)]

    async def write(document_id: UUID) -> None:
        for number in range(12):
            await events.publish(document_id, number)

    await asyncio.gather(*map(write, documents))
    await events.until_handled(60)
    effects = await events.effects()
    assert [[number for seen, number in effects if seen == one] for one in documents] == [list(range(12))] * 5


async def test_writers_wake_the_relay_only_where_nothing_waits_for_it_yet(events: Events) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await events.tally.connect()
    try:
        await connection.add_listener("tally", lambda *notification: heard.put_nowait(notification[-1]))
        await events.publish(uuid4(), 1)
        await events.publish(uuid4(), 2)
        await events.tally.one("notify", "all was heard")
        assert [await heard.get(), await heard.get()] == ["outbox", "all was heard"]
        await events.relay()
        await _published(events)
        await events.publish(uuid4(), 3)
        assert await heard.get() == "outbox"
    finally:
        await connection.close()


async def test_the_relay_finds_what_no_wake_up_told_it_of(events: Events) -> None:
    await events.relay()
    await events.publish(uuid4(), 1)
    await _published(events)
    async with asyncio.timeout(10):
        while not await events.tally.all("find_waiting", "%FROM outbox WHERE publish_time IS NULL%"):
            await asyncio.sleep(0.01)  # it looks again after each batch, and sleeps after a look that found nothing
    await events.tally.one("publish_unheard", INDEXED, events.tenant, uuid4(), b"")
    await _published(events)


async def test_another_replica_relays_on_when_one_loses_its_connection(events: Events) -> None:
    await events.relay(replicas=2)
    await events.consume()
    document_id = uuid4()
    await events.publish(document_id, 1)
    await events.until_handled(1)
    assert await events.tally.all("end_relay")
    await events.publish(document_id, 2)
    await events.until_handled(1)
    assert await events.effects() == [(document_id, 1), (document_id, 2)]


async def test_a_poison_event_is_given_up_after_five_tries_and_blocks_nothing(events: Events) -> None:
    poison, good = uuid4(), uuid4()

    def choke(event: Event) -> None:
        if DocumentIndexed.FromString(event.payload).document_id == str(poison):
            raise ValueError("it can't be swallowed")

    await events.relay()
    await events.consume(before=choke)
    await events.publish(poison, 1)
    await events.publish(good, *range(10))
    await events.until_handled(10)
    async with asyncio.timeout(10):
        parked = await events.parked.get()
    assert events.deliveries.count(parked.id) == MAX_DELIVERIES == 5
    assert await events.effects() == [(good, number) for number in range(10)]
    await events.publish(good, 10)
    await events.until_handled(1)
    assert (events.parked.qsize(), await events.unsettled()) == (0, 0)


async def test_what_is_no_event_is_dropped_at_once(events: Events) -> None:
    async def smuggle(jetstream: object) -> None:
        await jetstream.publish(subject_of(INDEXED), b"\xff")
        await jetstream.publish(subject_of(INDEXED), b"", headers={"ce-id": "x", "ce-type": INDEXED})

    await events.operate(smuggle)
    await events.relay()
    await events.consume()
    await events.publish(uuid4(), 1)
    await events.until_handled(1)
    assert (len(events.deliveries), await events.unsettled()) == (1, 0)


async def test_a_service_cannot_publish_the_events_of_another(events: Events, caplog: pytest.LogCaptureFixture) -> None:
    bus = bus_of(events.mesh, "session")
    async with bus.running():
        stream = await bus.stream()
        with pytest.raises(TimeoutError):
            await stream.publish(subject_of(INDEXED), b"", timeout=0.5)
    assert await events.stored() == 0
    (reported,) = [record.facts["error"] for record in caplog.records if record.name == "parley.events"]
    assert f'permissions violation for publish to "{subject_of(INDEXED)}"' in reported


@asynccontextmanager
async def _declared(folder: Path) -> AsyncIterator[Mesh]:
    """NATS of this folder while it runs, with its streams."""
    async with running(folder, lambda mesh: replace(nats.part(mesh), after_ready=None)) as mesh:
        await declare(
            DeclareSettings(
                nats_url=f"tls://{mesh.address('nats')}",
                tls_ca_file=mesh.ca_file,
                tls_cert_file=mesh.cert_file("operator"),
                tls_key_file=mesh.key_file("operator"),
            )
        )
        yield mesh


@pytest.mark.parametrize("store", ["kept", "deleted"])
async def test_nats_may_come_late_go_and_come_back(tally: Database, tmp_path: Path, store: str) -> None:
    mesh = open_mesh(tmp_path, Options(http_port=0, https_port=0))
    authority.ensure(mesh)
    document_id = uuid4()
    async with AsyncExitStack() as opened:
        events = Events(mesh, tally, opened)
        await events.relay()
        await events.consume()
        await events.publish(document_id, 1, 2)  # nobody has ever seen NATS
        async with _declared(tmp_path) as found:
            assert found.ports["nats"] == mesh.ports["nats"]
            await events.until_handled(2)
            await _published(events)
        if store == "deleted":
            shutil.rmtree(tmp_path / "nats" / "jetstream")
        await events.publish(document_id, 3, 4)  # the change is made without NATS
        async with _declared(tmp_path):
            await events.until_handled(2)
        assert await events.effects() == [(document_id, number) for number in (1, 2, 3, 4)]
