"""Envoy: the edge. Its configuration is the template envoy/edge.yaml; only addresses, files, limits and what the
contract says are filled in here.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jinja2

from stack import contract, programs
from stack.mesh import PROJECT, SERVICES, Mesh, write_atomically
from stack.part import Part

TEMPLATES = PROJECT / "envoy"
LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1)(:\d+)?"
SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"


def part(mesh: Mesh) -> Part:
    config = mesh.directory("envoy") / "edge.yaml"
    return Part(
        name="envoy",
        command=(
            programs.envoy(),
            "--config-path",
            str(config),
            # Otherwise it ends with the thread that launched it.
            "--disable-hot-restart",
            "--concurrency",
            "2",
            "--log-level",
            "warning",
            # Its access log would lag ten seconds behind.
            "--file-flush-interval-msec",
            "1000",
        ),
        needs=tuple(name for service in SERVICES for name in mesh.replicas(service)),
        prepare=functools.partial(_prepare, mesh, config),
        ready=functools.partial(_answer, mesh),
        stop_timeout_s=15,
        advice=f"Read the log lines above. This shows what is wrong with the configuration: "
        f"{programs.envoy()} --mode validate -c {config}",
    )


def render(mesh: Mesh, environ: Mapping[str, str] = os.environ) -> str:
    """The configuration of this mesh. Raises jinja2.UndefinedError when the template asks for something else.

    `environ` may set PARLEY_EDGE_REQUESTS_PER_S (per user, default 100), PARLEY_EDGE_BURST (default 200),
    PARLEY_EDGE_ORIGINS (space-separated regular expressions of browser origins) and OTEL_EXPORTER_OTLP_ENDPOINT.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # YAML, not HTML: escaping would change what is filled in
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("edge.yaml").render(
        http_port=mesh.ports["edge-http"],
        https_port=mesh.ports["edge-https"],
        admin_port=mesh.ports["envoy-admin"],
        clusters={service: [mesh.ports[name] for name in mesh.replicas(service)] for service in SERVICES},
        tls_dir=str(mesh.ca_file.parent),
        jwks_file=str(mesh.data_dir / "jwks.json"),
        descriptor_file=str(contract.DESCRIPTORS),
        methods=contract.public_methods(),
        messages=contract.request_fields(),
        refusals=contract.refusals(),
        requests_per_s=int(environ.get("PARLEY_EDGE_REQUESTS_PER_S") or 100),
        burst=int(environ.get("PARLEY_EDGE_BURST") or 200),
        origins=(environ.get("PARLEY_EDGE_ORIGINS") or LOCAL_ORIGINS).split(),
        otlp=_otlp(environ),
    )


async def takes_calls_to(mesh: Mesh, replica: str) -> None:
    """Raises RuntimeError while the edge runs and sends no calls to this replica of a service."""
    try:
        async with httpx.AsyncClient(timeout=3) as client:
            answer = await client.get(f"http://{mesh.address('envoy-admin')}/clusters", params={"format": "json"})
    except httpx.TransportError:
        return
    hosts = (host for cluster in answer.json()["cluster_statuses"] for host in cluster.get("host_statuses", ()))
    for host in hosts:
        ours = host["address"]["socket_address"]["port_value"] == mesh.ports[replica]
        # Each reason against a host is a field of its own beside this one.
        if ours and host["health_status"] != {"eds_health_status": "HEALTHY"}:
            raise RuntimeError(f"the edge sends it no calls: {host['health_status']}")


def _otlp(environ: Mapping[str, str]) -> Mapping[str, object] | None:
    """Where spans go: the standard OpenTelemetry variables, as the services read them."""
    if not (endpoint := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        return None
    url = urlsplit(endpoint)
    ca_file = environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE") or SYSTEM_CA_FILE
    return {"host": url.hostname, "port": url.port or 4317, "ca_file": ca_file if url.scheme == "https" else None}


async def _prepare(mesh: Mesh, config: Path) -> None:
    write_atomically(config, render(mesh), mode=0o600)


async def _answer(mesh: Mesh) -> None:
    async with httpx.AsyncClient(timeout=3) as client:
        response = await client.get(f"http://{mesh.address('envoy-admin')}/ready")
        response.raise_for_status()
