"""What operators see and do: status, logs, metrics, traces, restarts of single parts, and of everything."""

import asyncio
import ipaddress
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from stack.mesh import PROJECT, SERVICES, Mesh, Options
from stack.services import environment
from tests.mesh.running import PROGRAMS, RunningMesh, register
from tests.mesh.test_conversations import create
from tests.mesh.test_turns import events_of, messages_of, new_conversation, question
from tests.refusals import details_of, reason_of


def test_status_shows_every_part_ready(mesh: Any) -> None:
    parts = mesh.status()["parts"]
    expected = {"postgres", "valkey", "nats", "milvus", "s3", "triton", "envoy"}
    expected |= {f"{service}-1" for service in ("auth", "session", "chat", "knowledge", "notification")}
    assert parts.keys() == expected
    assert {part["state"] for part in parts.values()} == {"ready"}


def test_everything_listens_on_loopback_only(mesh: Any) -> None:
    supervisor = psutil.Process(mesh.status()["pid"])
    for process in supervisor.children(recursive=True):
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                address = ipaddress.ip_address(connection.laddr.ip)
                assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, (process.name(), address)


async def test_one_log_line_per_rpc_with_the_trace_id(mesh: Any, rest: httpx.AsyncClient, user: Any) -> None:
    trace_id = uuid4().hex
    secret = f"secret words {uuid4().hex}"
    headers = {**user.headers, "traceparent": f"00-{trace_id}-{uuid4().hex[:16]}-01"}
    await rest.post("/v1/conversations", json={"requestId": str(uuid4()), "title": secret}, headers=headers)
    log = (mesh.data_dir / "logs" / "session-1.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if trace_id in line]
    assert [(line["method"], line["code"]) for line in lines] == [
        ("/parley.session.v1.SessionService/CreateConversation", "OK")
    ]
    assert lines[0]["tenant"] == user.tenant_id
    assert lines[0]["milliseconds"] > 0
    logs = "".join(path.read_text() for path in (mesh.data_dir / "logs").glob("*.log"))
    assert secret not in logs
    assert user.token not in logs
    assert user.password not in logs


async def test_metrics_have_a_histogram_per_rpc(mesh: Any, rest: httpx.AsyncClient, user: Any) -> None:
    await rest.get("/v1/me", headers=user.headers)
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://{mesh.endpoints['metrics']['auth'][0]}/metrics")).text
    assert re.search(
        r'parley_rpc_duration_seconds_bucket\{code="OK",le="[\d.]+",method="/parley.auth.v1.UserService/GetMe"\}', text
    )


async def test_notifications_tell_of_a_finished_answer(
    edge: grpc.aio.Channel, rest: httpx.AsyncClient, user: Any
) -> None:
    conversation_id = await new_conversation(edge, user)
    events = await events_of(edge, user, question(conversation_id, "hello"))
    async with asyncio.timeout(20), rest.stream("GET", "/v1/notifications:watch", headers=user.headers) as feed:
        async for line in feed.aiter_lines():
            if line:
                notification = json.loads(line)["notification"]
                break
    assert notification["answerReady"]["conversationId"] == conversation_id
    assert notification["answerReady"]["messageId"] == events[-1].completed.message_id


async def test_without_the_model_the_turn_fails_and_the_question_stays(
    mesh: Any, edge: grpc.aio.Channel, user: Any
) -> None:
    conversation_id = await new_conversation(edge, user)
    mesh.kill("triton")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await events_of(edge, user, question(conversation_id, "are you there"))
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(failed.value) == "MODEL_UNAVAILABLE"
    assert details_of(failed.value)["RetryInfo"].retry_delay.ToMilliseconds() > 0
    (asked,) = await messages_of(edge, user, conversation_id)
    assert asked.text == "are you there"
    # The supervisor brings it back, and the next turn works.
    async with asyncio.timeout(60):
        while True:
            try:
                events = await events_of(edge, user, question(conversation_id, "are you back"))
                break
            except grpc.aio.AioRpcError as error:
                assert reason_of(error) == "MODEL_UNAVAILABLE"
                await asyncio.sleep(0.2)
    assert events[-1].WhichOneof("event") == "completed"
    assert mesh.status()["parts"]["triton"]["restarts"] == 1


@pytest.mark.parametrize("service", SERVICES)
def test_check_finds_every_dependency_of_a_service(mesh: Any, service: str) -> None:
    planned = Mesh(data_dir=mesh.data_dir, options=Options(), ports=mesh.endpoints["ports"])
    checked = subprocess.run(
        [PROGRAMS / "python", "-m", f"services.{service}", "--check"],
        cwd=PROJECT,
        env=environment(planned, service, f"{service}-1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {"ok      PostgreSQL", "ok      NATS"} <= set(checked.stdout.splitlines())


async def test_a_killed_service_comes_back(mesh: Any, rest: httpx.AsyncClient, user: Any) -> None:
    made = await create(rest, user, "kept")
    mesh.kill("session-1")
    async with asyncio.timeout(30):
        while (found := await rest.get(f"/v1/conversations/{made['id']}", headers=user.headers)).status_code != 200:
            assert found.status_code == 503, found.text
            await asyncio.sleep(0.1)
    assert found.json()["conversation"]["title"] == "kept"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    endpoint: str

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str, str, str]] = []  # service, name, trace, span, parent

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            attributes = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    self.spans.append((attributes.get("service.name", ""), span.name, *ids))
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield collector
    server.stop(None)


@pytest.mark.timeout(240)
async def test_a_second_mesh_stands_beside_the_first_traces_and_keeps_its_data(
    mesh: Any, collector: Collector, tmp_path: Path, rest: httpx.AsyncClient
) -> None:
    """Another data directory, two replicas of chat, an OTLP endpoint; stopped, started again, all still there."""
    second = RunningMesh(tmp_path / "second")
    options = ("--detach", "--port=0", "--tls-port=0", "--chat-models=echo", "--replicas=chat=2")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    try:
        up = await asyncio.to_thread(second.parley, "up", *options, **environment)
        assert up.returncode == 0, up.stdout + up.stderr
        assert {"chat-1", "chat-2"} <= second.status()["parts"].keys()
        async with grpc.aio.insecure_channel(second.http.removeprefix("http://")) as edge:
            user = await register(edge)
            conversation_id = await new_conversation(edge, user)
            await events_of(edge, user, question(conversation_id, "keep this"))
        chain = {"edge", "chat", "session"}
        async with asyncio.timeout(30):
            while not (traces := _traces_through(collector, chain)):
                await asyncio.sleep(0.1)
        assert traces
        down = await asyncio.to_thread(second.parley, "down")
        assert down.returncode == 0
        assert not _listening(second)
        up = await asyncio.to_thread(second.parley, "up", *options)
        assert up.returncode == 0, up.stdout + up.stderr
        async with grpc.aio.insecure_channel(second.http.removeprefix("http://")) as edge:
            texts = [message.text for message in await messages_of(edge, user, conversation_id)]
            assert texts[0] == "keep this"
            assert len(texts) == 2
            stub = ChatServiceStub(edge)
            call = stub.StartTurn(question(conversation_id, "and on"), metadata=user.metadata)
            assert [response async for response in call]
        again = await asyncio.to_thread(second.parley, "up", *options)
        assert again.returncode == 1
        assert "already running" in again.stdout + again.stderr
    finally:
        await asyncio.to_thread(second.parley, "down")
    assert (await rest.get("/healthz")).status_code == 200  # the first one did not notice


def _traces_through(collector: Collector, services: set[str]) -> set[str]:
    """Traces in which all of these services have spans, each with a parent that is in the trace but the first."""
    found = set()
    for trace in {span[2] for span in collector.spans}:
        spans = [span for span in collector.spans if span[2] == trace]
        ids = {span[3] for span in spans}
        if services <= {span[0] for span in spans} and all(span[4] in ids for span in spans if span[4]):
            found.add(trace)
    return found


def _listening(mesh: RunningMesh) -> list[str]:
    open_ports = []
    for name, port in mesh.endpoints["ports"].items():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                open_ports.append(name)
    return open_ports
