"""One truth about who may call whom: the allow-list, istio/ and the stubs in the code; and the same for retries."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.chat.peers import IDEMPOTENT_AT_KNOWLEDGE, IDEMPOTENT_AT_SESSION
from stack import contract, envoy
from stack.mesh import PROJECT, SERVICES, Options, open_mesh

PRINCIPAL = "parley.local/ns/parley/sa/"
MODEL_SERVER = "inference.GRPCInferenceService"
OUTSIDE_CODE = {"edge", "operator"}
"""Callers that are no service of ours."""
NOTHING_REACHED_A_HANDLER = {"connect-failure", "refused-stream", "reset-before-request", "cancelled"}
"""After these a call may be sent again whatever it does; see decision 0012."""
REPEATABLE = {f"/{service}/{name}" for service, name in (*IDEMPOTENT_AT_SESSION, *IDEMPOTENT_AT_KNOWLEDGE)}
"""What our own channels repeat when a replica is unavailable."""


def allowed() -> dict[str, set[str]]:
    text = (PROJECT / "services/shared/serving/allow_list.toml").read_text()
    return {service: set(callers) for service, callers in tomllib.loads(text).items()}


def documents(kind: str) -> Iterator[Mapping[str, Any]]:
    for path in sorted((PROJECT / "istio").glob("*.yaml")):
        yield from (document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == kind)


def workload(policy: Mapping[str, Any]) -> str | None:
    return policy["spec"].get("selector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")


def policies_with_callers() -> Iterator[tuple[str | None, str, set[str]]]:
    """(workload, proto service, callers) of each rule that names callers."""
    for policy in documents("AuthorizationPolicy"):
        for rule in policy["spec"].get("rules", []):
            if "from" in rule:
                (source,), (target,) = rule["from"], rule["to"]
                (path,) = target["operation"]["paths"]
                callers = {name.removeprefix(PRINCIPAL) for name in source["source"]["principals"]}
                yield workload(policy), path.removeprefix("/").removesuffix("/*"), callers


def test_istio_allows_what_the_allow_list_allows_and_nothing_else() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for _, service, callers in policies_with_callers():
        found[service] |= callers
    assert found == allowed()


def test_each_rule_stands_at_the_workload_that_serves_it() -> None:
    for where, service, _ in policies_with_callers():
        package = service.split(".")[0]
        expected = {"parley": service.split(".")[1], "inference": "triton", "grpc": None}[package]
        assert where == expected, service


def test_all_else_is_denied_and_every_peer_has_a_certificate() -> None:
    assert {} in [policy["spec"] for policy in documents("AuthorizationPolicy")]
    assert {"mtls": {"mode": "STRICT"}} in [policy["spec"] for policy in documents("PeerAuthentication")]
    # Only the edge takes calls from outside, and only at its two ports.
    assert {workload(policy) for policy in documents("PeerAuthentication")} == {None, "edge"}
    open_to_all = [
        p for p in documents("AuthorizationPolicy") for rule in p["spec"].get("rules", []) if "from" not in rule
    ]
    assert [workload(policy) for policy in open_to_all] == ["edge"]


def stubs_in(service: str) -> set[str]:
    """Proto services whose client the code of a service imports, and the model server where it uses its client."""
    found = set()
    for path in (PROJECT / "services" / service).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tritonclient"):
                found.add(MODEL_SERVER)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").endswith("_pb2_grpc"):
                package = (node.module or "").rpartition(".")[0]
                found |= {f"{package}.{n.name.removesuffix('Stub')}" for n in node.names if n.name.endswith("Stub")}
            if isinstance(node, ast.Import) and any(n.name.startswith("tritonclient") for n in node.names):
                found.add(MODEL_SERVER)
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_call_what_its_code_calls(service: str) -> None:
    assert stubs_in(service) == {target for target, callers in allowed().items() if service in callers - OUTSIDE_CODE}


def traffic_of(path: str) -> Mapping[str, Any]:
    """The rule of traffic.yaml that a call to /service/method falls under: the first that matches."""
    (virtual,) = [v for v in documents("VirtualService") if v["spec"]["hosts"] == [path.split(".")[1]]]
    for rule in virtual["spec"]["http"]:
        if "match" not in rule or any(matches(match["uri"], path) for match in rule["match"]):
            return rule
    raise AssertionError(path)


def matches(uri: Mapping[str, str], path: str) -> bool:
    ((how, value),) = uri.items()
    return {"exact": path == value, "prefix": path.startswith(value), "regex": bool(re.fullmatch(value, path))}[how]


def retried_on(rule: Mapping[str, Any]) -> set[str]:
    return set(rule["retries"]["retryOn"].split(","))


def test_istio_repeats_and_times_out_what_our_channels_do() -> None:
    for method in contract.methods():
        rule = traffic_of(method.path)
        again = {"unavailable"} if method.idempotent or method.path in REPEATABLE else set()
        assert retried_on(rule) == NOTHING_REACHED_A_HANDLER | again, method.path
        assert rule["timeout"] == ("0s" if method.streams else "15s"), method.path
        assert rule["route"] == [{"destination": {"host": method.cluster}}]


def test_the_edge_repeats_what_istio_repeats(tmp_path: Path) -> None:
    config = yaml.safe_load(envoy.render(open_mesh(tmp_path, Options(http_port=0, https_port=0)), {}))
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        routes = {r["match"].get("path"): r["route"] for r in manager["route_config"]["virtual_hosts"][0]["routes"]}
        for method in contract.public_methods():
            policy = set(routes[method.path]["retry_policy"]["retry_on"].split(","))
            assert policy == retried_on(traffic_of(method.path)), method.path


def test_what_is_repeated_changes_nothing_and_is_no_stream() -> None:
    methods = list(contract.methods())
    assert {method.name for method in methods if method.idempotent} == {
        "GetConversation", "GetCrawl", "GetDocument", "GetFaq", "GetJwks", "GetMe", "GetTurn", "ListCollections",
        "ListConversations", "ListCrawlPages", "ListCrawls", "ListDocuments", "ListFaqs", "ListMessages",
        "ListNotifications", "Search",
    }  # fmt: skip
    assert not [
        method.path for method in methods if method.streams and (method.idempotent or method.path in REPEATABLE)
    ]
    # Of turns, only the reading of one.
    assert [m.name for m in methods if m.service == "parley.chat.v1.ChatService" and m.idempotent] == ["GetTurn"]


def test_the_mesh_ends_no_stream_and_notices_a_lost_peer() -> None:
    (rule,) = documents("DestinationRule")
    pool = rule["spec"]["trafficPolicy"]["connectionPool"]
    assert pool["http"]["idleTimeout"] == "3600s"
    assert "maxConnectionDuration" not in pool["tcp"]
    assert pool["tcp"]["tcpKeepalive"]["time"] == "30s"
    assert rule["spec"]["host"] == "*.parley.svc.cluster.local"  # Triton's too
    (model,) = [v for v in documents("VirtualService") if v["spec"]["hosts"] == ["triton"]]
    (rule,) = model["spec"]["http"]
    assert (rule["timeout"], retried_on(rule)) == ("0s", NOTHING_REACHED_A_HANDLER)
    assert not [r for v in documents("VirtualService") for r in v["spec"]["http"] if "perTryTimeout" in r["retries"]]


def test_tokens_are_verified_everywhere_but_where_an_expired_one_may_end_a_turn() -> None:
    policies = list(documents("RequestAuthentication"))
    assert {workload(policy) for policy in policies} == set(SERVICES) - {"session"}
    for policy in policies:
        (rule,) = policy["spec"]["jwtRules"]
        assert (rule["issuer"], rule["audiences"]) == ("parley", ["parley-access"])
        assert rule["forwardOriginalToken"]
