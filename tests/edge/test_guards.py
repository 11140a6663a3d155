"""What the edge checks before a service is asked: tokens, limits, origins, headers; and who it believes behind it."""

import asyncio
import json
import os
import ssl
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml

from parley.errors.v1.error_reason_pb2 import ErrorReason
from stack import contract, envoy
from stack.mesh import SERVICES
from tests.conftest import Signer
from tests.edge.answers import rest_refusal
from tests.edge.conftest import Edge, edge_in_front

LOCAL_ORIGIN = "http://localhost:5173"


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        ("", "TOKEN_MISSING"),
        ("Basic YTpi", "TOKEN_MISSING"),
        ("Bearer abc", "TOKEN_INVALID"),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", "TOKEN_INVALID"),
    ],
)
async def test_bad_token_is_a_401_with_its_reason(rest: httpx.AsyncClient, authorization: str, reason: str) -> None:
    response = await rest.get("/v1/me", headers={"authorization": authorization})
    assert rest_refusal(response) == (401, reason)
    assert response.headers["www-authenticate"].startswith("Bearer ")


async def test_token_of_another_key_or_without_an_end_is_invalid(
    rest: httpx.AsyncClient, tmp_path: Path, signer: Signer
) -> None:
    other = Signer(tmp_path)
    for token in (other.token(), signer.token(exp=None)):
        response = await rest.get("/v1/me", headers={"authorization": f"Bearer {token}"})
        assert rest_refusal(response) == (401, "TOKEN_INVALID")


async def test_each_user_has_a_limit_of_their_own(rest: httpx.AsyncClient, signer: Signer) -> None:
    greedy = {"authorization": f"Bearer {signer.token(user=uuid4())}"}
    for _ in range(2000):
        response = await rest.get("/v1/nothing", headers=greedy)
        if response.status_code == 429:
            break
    assert rest_refusal(response) == (429, "RATE_LIMITED")
    assert response.headers["retry-after"] == "1"
    assert (await rest.get("/v1/me", headers={"authorization": f"Bearer {signer.token()}"})).status_code == 200


@pytest.mark.parametrize("path", ["/v1/me", "/parley.chat.v1.ChatService/StartTurn", "/v1/auth:login"])
async def test_preflight_of_a_known_origin_is_answered(rest: httpx.AsyncClient, path: str) -> None:
    asked = {
        "origin": LOCAL_ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-grpc-web",
        "authorization": "",
    }
    response = await rest.options(path, headers=asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == LOCAL_ORIGIN
    assert "authorization" in response.headers["access-control-allow-headers"]


async def test_refusals_can_be_read_by_a_known_origin_only(rest: httpx.AsyncClient) -> None:
    signed_out = {"authorization": ""}
    known = await rest.get("/v1/me", headers={"origin": LOCAL_ORIGIN, **signed_out})
    assert known.headers["access-control-allow-origin"] == LOCAL_ORIGIN
    assert "grpc-status-details-bin" in known.headers["access-control-expose-headers"]
    for origin in ("https://evil.example", "http://localhost.evil.example", "http://localhost:80.evil.example"):
        strange = await rest.get("/v1/me", headers={"origin": origin, **signed_out})
        assert "access-control-allow-origin" not in strange.headers


async def test_headers_with_underscores_are_refused(rest: httpx.AsyncClient) -> None:
    response = await rest.get("/v1/me", headers={"x_tenant_id": "somewhere"})
    assert rest_refusal(response) == (400, "MALFORMED_REQUEST")


async def test_healthz_says_whether_every_service_has_a_replica(edge: Edge) -> None:
    async with httpx.AsyncClient(base_url=edge.url) as stranger:
        assert (await stranger.get("/healthz")).status_code == 200


async def test_http_1_and_http_2_are_served_over_tls_1_3(edge: Edge) -> None:
    for protocol in ("http/1.1", "h2"):
        assert await _agreed(edge, protocol) == ("TLSv1.3", protocol)


async def _agreed(edge: Edge, protocol: str) -> tuple[str | None, str | None]:
    context = ssl.create_default_context(cafile=str(edge.mesh.ca_file))
    context.set_alpn_protocols([protocol])
    port = edge.mesh.ports["edge-https"]
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    agreed = tls.version(), tls.selected_alpn_protocol()
    writer.transport.abort()
    return agreed


async def test_access_log_is_json_without_queries_and_tokens(tmp_path: Path, signer: Signer) -> None:
    tenant, secret = uuid4(), uuid4().hex
    token = signer.token(tenant=tenant)
    async with edge_in_front(tmp_path, signer.jwks_file, {"session": "session"}) as edge:
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=edge.url, headers=headers) as rest:
            await rest.get("/v1/conversations", params={"pageToken": secret})
    log = edge.access_log()  # written out when Envoy stops
    line = next(json.loads(line) for line in log.splitlines() if line.startswith("{"))
    assert (line["path"], line["method"], line["status"]) == ("/v1/conversations", "GET", 200)
    assert (line["tenant"], len(line["trace_id"])) == (str(tenant), 32)
    assert secret not in log
    assert token not in log


async def test_upstream_without_or_with_the_wrong_certificate_gets_no_call(tmp_path: Path, signer: Signer) -> None:
    shown: dict[str, str | None] = {"auth": "auth", "session": "chat", "notification": None}  # the others are down
    async with (
        edge_in_front(tmp_path, signer.jwks_file, shown) as edge,
        httpx.AsyncClient(base_url=edge.url, headers={"authorization": f"Bearer {signer.token()}"}) as rest,
    ):
        assert (await rest.get("/v1/me")).status_code == 200
        assert edge.seen.calls == 1
        for path in ("/v1/conversations", "/v1/notifications", "/v1/documents"):
            response = await rest.get(path)
            assert rest_refusal(response) == (503, "SERVICE_UNAVAILABLE")
            assert response.headers["retry-after"] == "1"
        assert edge.seen.calls == 1
        assert rest_refusal(await rest.get("/healthz")) == (503, "SERVICE_UNAVAILABLE")


async def test_routes_are_the_public_methods(edge: Edge) -> None:
    config = yaml.safe_load(envoy.render(edge.mesh, os.environ))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = {r["match"].get("path"): r["route"] for r in manager["route_config"]["virtual_hosts"][0]["routes"]}
    methods = {method.path: method for method in contract.public_methods()}
    assert {path for path in routes if path} == set(methods)
    assert {routes[path]["cluster"] for path in methods} == set(SERVICES)


def test_refusals_use_the_reasons_of_the_contract() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118  # not a mapping
    assert {refusal.reason for refusal in contract.refusals()} <= known
