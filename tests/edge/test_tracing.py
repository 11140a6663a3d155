"""Spans of the edge, seen by a small collector."""

import asyncio
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.conftest import Signer
from tests.edge.conftest import edge_in_front


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: asyncio.Queue[trace_service_pb2.ExportTraceServiceRequest] = asyncio.Queue()

    async def Export(self, request, context):
        self.requests.put_nowait(request)
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_spans_carry_the_traces_that_the_services_see(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    async with (
        edge_in_front(tmp_path, signer.jwks_file, {"auth": "auth"}) as edge,
        httpx.AsyncClient(base_url=edge.url, headers={"authorization": f"Bearer {signer.token()}"}) as rest,
    ):
        handed_on = set()
        for _ in range(5):  # more spans than Envoy keeps back
            await rest.get("/v1/me")
            handed_on.add(str(edge.seen.metadata["traceparent"]).split("-")[1])
        (spans,) = (await collector.requests.get()).resource_spans
    await server.stop(None)
    names = {attribute.key: attribute.value.string_value for attribute in spans.resource.attributes}
    assert names["service.name"] == "edge"
    exported = {span.trace_id.hex() for scope in spans.scope_spans for span in scope.spans}
    assert exported
    assert exported <= handed_on
