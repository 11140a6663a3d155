"""What operators see of a service: JSON log lines, Prometheus metrics, OpenTelemetry traces.

Traces are exported only when OTEL_EXPORTER_OTLP_ENDPOINT is set; a trace id is in every log line all the same.
"""

import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Sequence

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import Histogram

RPC_SECONDS = Histogram(
    "parley_rpc_duration_seconds",
    "Time from the arrival of a call to its end.",
    ["method", "code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
_rpc_log = logging.getLogger("parley.rpc")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `extra={"facts": {...}}` adds members."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(service: str) -> None:
    """Send log lines to standard error, and spans to the OTLP endpoint if there is one."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=os.environ.get("PARLEY_LOG_LEVEL", "INFO"), handlers=[handler], force=True)
    if tracing():
        provider = TracerProvider(resource=Resource.create({"service.name": service}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)


def shut_down() -> None:
    """Send the spans that wait."""
    if isinstance(provider := trace.get_tracer_provider(), TracerProvider):
        provider.shutdown()


def tracing() -> bool:
    """Whether spans are exported."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def server_interceptors() -> Sequence[grpc.aio.ServerInterceptor]:
    """What opens a span per call."""
    return [aio_server_interceptor()] if tracing() else []


def client_interceptors() -> Sequence[grpc.aio.ClientInterceptor]:
    """What opens a span per call to a peer and hands the trace on."""
    return aio_client_interceptors() if tracing() else []


def trace_id_of(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """The trace id (32 hex digits) of the current span, else of the incoming traceparent, else a new one."""
    if (span := trace.get_current_span().get_span_context()).is_valid:
        return f"{span.trace_id:032x}"
    for key, value in metadata:
        if key == "traceparent" and len(parts := str(value).split("-")) == 4 and len(parts[1]) == 32:
            return parts[1]
    return secrets.token_hex(16)


def record_rpc(method: str, code: grpc.StatusCode, seconds: float, facts: dict[str, object]) -> None:
    """Write the metrics and the one log line of a call that has ended; a good health check, once a second, has none."""
    RPC_SECONDS.labels(method, code.name).observe(seconds)
    line = {"method": method, "code": code.name, "milliseconds": round(seconds * 1000, 2), **facts}
    checked = method.startswith("/grpc.health.") and code is grpc.StatusCode.OK
    _rpc_log.log(logging.DEBUG if checked else logging.INFO, "rpc", extra={"facts": line})
