"""The five services: one process per replica, each with its own certificate, database role and addresses."""

import functools
import os
import sys
from collections.abc import Callable, Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack import envoy, postgres, s3
from stack.mesh import PROJECT, SERVICES, Mesh
from stack.part import Part

STORES = {
    "auth": ("postgres", "nats"),
    "session": ("postgres", "nats"),
    "chat": ("postgres", "nats", "valkey"),
    "knowledge": ("postgres", "nats", "milvus", "s3"),
    "notification": ("postgres", "nats"),
}
"""What must be ready first. Never a peer or the model server: services start in any order and ask again."""
STOPPING = {
    # Twice the interval at which the edge asks about health (envoy/edge.yaml).
    "PARLEY_LAME_DUCK_S": "1",
    "PARLEY_STOP_GRACE_S": "10",
}
CLOSING_S = 10.0
"""What a service gets after its calls have ended, to save and close."""


def parts(mesh: Mesh) -> list[Part]:
    return [_part(mesh, service, name) for service in SERVICES for name in mesh.replicas(service)]


def _part(mesh: Mesh, service: str, name: str) -> Part:
    env = environment(mesh, service, name)
    return Part(
        name=name,
        command=(sys.executable, "-m", f"services.{service}"),
        cwd=PROJECT,
        env=env,
        needs=STORES[service],
        ready=functools.partial(_answer, mesh, service, name),
        noticed=functools.partial(envoy.takes_calls_to, mesh, name),
        stop_timeout_s=sum(float(env[name]) for name in STOPPING) + CLOSING_S,
        advice="Read the log lines above: the service names what it cannot reach or what it was not given.",
    )


def environment(mesh: Mesh, service: str, name: str) -> dict[str, str]:
    parley = {
        "LISTEN_ADDRESS": mesh.address(name),
        "METRICS_ADDRESS": mesh.address(f"{name}-metrics"),
        "REFLECTION": "1",
        "TLS_CA_FILE": mesh.ca_file,
        "TLS_CERT_FILE": mesh.cert_file(service),
        "TLS_KEY_FILE": mesh.key_file(service),
        "JWKS_FILE": mesh.data_dir / "jwks.json",
        "POSTGRES_DSN": postgres.dsn(mesh, service),
        "POSTGRES_PASSWORD_FILE": mesh.secret_file(f"postgres-{service}"),
        "NATS_URL": f"tls://{mesh.address('nats')}",
        **OWN.get(service, lambda _: {})(mesh),
    }
    # PARLEY_LOG_LEVEL and the like; the addresses and files of this mesh come last and win.
    inherited = {key: value for key, value in os.environ.items() if key.startswith(("OTEL_", "PARLEY_"))}
    lean = {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}
    return {**STOPPING, **inherited, **lean, **{f"PARLEY_{key}": str(value) for key, value in parley.items()}}


def _auth(mesh: Mesh) -> Mapping[str, object]:
    return {
        "SIGNING_KEY_FILE": mesh.secret_file("signing-key.pem"),
        "ADMIN_PASSWORD_FILE": mesh.data_dir / "admin-password",
    }


def _chat(mesh: Mesh) -> Mapping[str, object]:
    return {
        "SESSION_ADDRESS": _replicated(mesh, "session"),
        "KNOWLEDGE_ADDRESS": _replicated(mesh, "knowledge"),
        "TRITON_ADDRESS": mesh.address("triton"),
        "VALKEY_URL": f"redis://chat@{mesh.address('valkey')}/0",
        "VALKEY_PASSWORD_FILE": mesh.secret_file("valkey-chat"),
        "CHAT_MODELS": ",".join(mesh.options.chat_models),
    }


def _knowledge(mesh: Mesh) -> Mapping[str, object]:
    reranker = mesh.options.rerank_model
    return {
        **({"RERANK_MODEL": reranker.name} if reranker else {}),
        "TRITON_ADDRESS": mesh.address("triton"),
        "EMBEDDING_MODEL": mesh.options.embedding_models[0],
        "MILVUS_URL": f"http://{mesh.address('milvus')}",
        "S3_ENDPOINT": f"http://{mesh.address('s3')}",
        "S3_BUCKET": s3.BUCKET,
        "S3_ACCESS_KEY_FILE": mesh.secret_file("s3-access-key"),
        "S3_SECRET_KEY_FILE": mesh.secret_file("s3-secret-key"),
    }


OWN: Mapping[str, Callable[[Mesh], Mapping[str, object]]] = {
    "auth": _auth,
    "chat": _chat,
    "knowledge": _knowledge,
}


def _replicated(mesh: Mesh, service: str) -> str:
    """One gRPC target that names every replica."""
    return "ipv4:" + ",".join(mesh.address(name) for name in mesh.replicas(service))


async def _answer(mesh: Mesh, service: str, name: str) -> None:
    credentials = grpc.ssl_channel_credentials(
        mesh.ca_file.read_bytes(),
        mesh.key_file("operator").read_bytes(),
        mesh.cert_file("operator").read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", service)]
    async with grpc.aio.secure_channel(mesh.address(name), credentials, options) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise RuntimeError(f"health is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")
