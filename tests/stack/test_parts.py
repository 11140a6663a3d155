"""Each real store by itself: it starts, keeps its data over a restart, and gives each service no more than its own."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import redis.exceptions
from nats.aio.client import Client
from nats.errors import Error as NatsError

from services.shared.events.streams import DURABLES, STREAM, subject_of
from stack import authority, catalog, milvus, nats, postgres, s3, valkey
from stack.mesh import SERVICES, Mesh, Options, open_mesh
from stack.process import leftovers
from stack.supervisor import Supervisor


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mesh")


@pytest.fixture(scope="module")
def mesh(data_dir) -> Iterator[Mesh]:
    with catalog.started(data_dir, "postgres", "valkey", "nats", "milvus", "s3") as mesh:
        yield mesh


def processes(mesh: Mesh) -> list[psutil.Process]:
    """Everything the supervisor in this process started for this mesh, helpers included."""
    groups = {process.pid for process in leftovers(mesh.data_dir)}
    return [process for process in psutil.Process().children(recursive=True) if os.getpgid(process.pid) in groups]


def test_every_store_listens_on_loopback_only(mesh):
    listening = {
        (c.laddr.ip, c.laddr.port)
        for process in processes(mesh)
        for c in process.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    assert {ip.removeprefix("::ffff:") for ip, _ in listening} == {"127.0.0.1"}
    assert {port for _, port in listening} == {mesh.ports[s] for s in ("postgres", "valkey", "nats", "milvus", "s3")}


def test_no_secret_is_on_a_command_line(mesh):
    secrets = [mesh.secret(name) for name in authority.SECRETS]
    lines = [" ".join(process.cmdline()) for process in processes(mesh)]
    assert not [line for line in lines for secret in secrets if secret in line]


async def test_chat_uses_its_own_keys(mesh):
    async with valkey.connect(mesh, "chat") as client:
        assert await client.xadd("turn:1:log", {"e": "x"}, id="1-0") == b"1-0"
        with pytest.raises(redis.exceptions.ResponseError, match="equal or smaller"):
            await client.xadd("turn:1:log", {"e": "y"}, id="1-0")
        assert await client.set("turn:1:lease", "replica-1", nx=True, px=5000)
        assert await client.eval("return redis.call('GET', KEYS[1])", 1, "turn:1:lease") == b"replica-1"


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "quota:1"),
        ("SET", "other", "1"),
        ("EVAL", "return redis.call('GET', 'quota:1')", "0"),
        ("COPY", "turn:1:log", "other"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "FLUSH"),
        ("PUBLISH", "turn:1", "x"),
        ("SHUTDOWN",),
    ],
    ids=lambda command: " ".join(command[:2]),
)
async def test_chat_cannot(mesh, command):
    async with valkey.connect(mesh, "chat") as client:
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
            await client.execute_command(*command)


async def test_client_without_a_password_is_refused(mesh):
    async with redis.asyncio.Redis(port=mesh.ports["valkey"], retry=None) as client:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await client.get("turn:1")


@pytest.mark.parametrize("service", SERVICES)
async def test_service_publishes_its_own_events(mesh, service):
    client = await nats.connect(mesh, service)
    try:
        acknowledged = await client.jetstream().publish(f"parley.events.{service}.something.v1", b"{}")
        assert acknowledged.stream == STREAM
    finally:
        await client.close()


@pytest.mark.parametrize("durable", DURABLES, ids=lambda durable: durable.name)
async def test_service_reads_its_own_consumer(mesh, durable):
    subject = subject_of(durable.event_types[0])
    publisher = await nats.connect(mesh, subject.split(".")[2])
    client = await nats.connect(mesh, durable.service)
    try:
        await publisher.jetstream().publish(subject, b"{}")
        subscription = await client.jetstream().pull_subscribe_bind(durable=durable.name, stream=STREAM)
        [message] = await subscription.fetch(1, timeout=5)
        assert message.subject in map(subject_of, durable.event_types)  # one that came before it, too
        await message.ack_sync(timeout=5)
    finally:
        await publisher.close()
        await client.close()


@pytest.mark.parametrize(
    "subject",
    [
        "parley.events.auth.user_registered.v1",
        f"$JS.API.STREAM.DELETE.{STREAM}",
        f"$JS.API.STREAM.PURGE.{STREAM}",
        f"$JS.API.STREAM.MSG.GET.{STREAM}",
        "$JS.API.STREAM.CREATE.MINE",
        f"$JS.API.CONSUMER.CREATE.{STREAM}",
        f"$JS.API.CONSUMER.DELETE.{STREAM}.knowledge-indexing",
        f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.knowledge-indexing",
        "_INBOX.auth.x",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_session_cannot_publish(mesh, subject):
    assert "permissions violation for publish" in await refusal(mesh, "session", publish=subject)


@pytest.mark.parametrize("subject", ["parley.events.>", "_INBOX.>", "_INBOX.auth.>", ">"])
async def test_session_cannot_subscribe(mesh, subject):
    assert "permissions violation for subscription" in await refusal(mesh, "session", subscribe=subject)


async def refusal(mesh: Mesh, holder: str, *, publish: str = "", subscribe: str = "") -> str:
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_error(error: Exception) -> None:
        if not refused.done():
            refused.set_result(str(error))

    client = await nats.connect(mesh, holder, error_cb=on_error)
    try:
        if publish:
            await client.publish(publish, b"{}")
        else:
            await client.subscribe(subscribe)
        await client.flush()
        return (await asyncio.wait_for(refused, 5)).lower()
    finally:
        await client.close()


@pytest.mark.parametrize("holder", ["triton", "edge"])
async def test_certificate_without_a_user_is_refused(mesh, holder):
    with pytest.raises((NatsError, ConnectionError)):
        await nats.connect(mesh, holder, error_cb=_ignore)


async def test_client_without_a_certificate_is_refused(mesh):
    with pytest.raises((NatsError, OSError)):
        await Client().connect(
            f"tls://{mesh.address('nats')}",
            tls=ssl.create_default_context(cafile=mesh.ca_file),
            tls_hostname="nats",
            allow_reconnect=False,
            error_cb=_ignore,
        )


async def _ignore(error: Exception) -> None:
    """nats-py prints what nobody takes."""


async def test_unsigned_request_is_refused(mesh):
    async with httpx.AsyncClient() as client:
        response = await client.put(f"http://{mesh.address('s3')}/{s3.BUCKET}/x", content=b"x")
    assert 400 <= response.status_code < 500
    assert not list((mesh.data_dir / "s3" / "buckets" / s3.BUCKET).iterdir())


async def test_data_outlives_a_restart_and_a_kill(tmp_path):
    mesh = open_mesh(tmp_path, Options(http_port=0, https_port=0))
    authority.ensure(mesh)
    parts = [postgres.part(mesh), valkey.part(mesh), nats.part(mesh), milvus.part(mesh), s3.part(mesh)]
    supervisor = Supervisor(parts, mesh.data_dir, first_pause_s=0.05)
    await supervisor.start()
    try:
        connection = await postgres.connect(mesh, "session")
        await connection.execute("CREATE TABLE notes (text text); INSERT INTO notes VALUES ('kept')")
        await connection.close()
        events = await nats.connect(mesh)
        await events.jetstream().publish("parley.events.auth.user_registered.v1", b"kept")
        await events.close()
        async with valkey.connect(mesh, "chat") as client:
            await client.xadd("turn:1:log", {"e": "kept"})
        killed = {name: part["pid"] for name, part in supervisor.status()["parts"].items()}
        await asyncio.sleep(1.1)  # Valkey promises to have written what is older than a second
        for pid in killed.values():
            os.kill(pid, 9)
        async with asyncio.timeout(20):
            while not all(p["restarts"] == 1 and p["state"] == "ready" for p in supervisor.status()["parts"].values()):
                await asyncio.sleep(0.05)
        await check_kept(mesh)
    finally:
        await supervisor.stop()
    async with catalog.running(tmp_path, "postgres", "valkey", "nats") as again:
        assert again.ports == mesh.ports
        await check_kept(again)


async def check_kept(mesh: Mesh) -> None:
    connection = await postgres.connect(mesh, "session")
    assert await connection.fetchval("SELECT text FROM notes") == "kept"
    await connection.close()
    client = await nats.connect(mesh)
    assert (await client.jetstream().get_msg(STREAM, 1)).data == b"kept"
    await client.close()
    async with valkey.connect(mesh, "chat") as turns:
        assert await turns.xlen("turn:1:log") == 1
