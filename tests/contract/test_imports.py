"""The arrows of the architecture: __main__ -> handlers -> domain <- adapters, and no way from service to service.

A module's role is its file name. What is none of the named roles is domain, and domain knows no outside system.
"""

import ast
import functools
from pathlib import Path

import grimp
import pytest

from stack.mesh import PROJECT, SERVICES

WIRING, HANDLERS, WIRE, SETTINGS = "__main__", "handlers", "wire", "settings"
# Each adapter knows one outside system: these packages, and nothing else from the list below.
ADAPTERS = {
    "store": {"asyncpg", "parley", "google"},
    "peers": {"grpc", "parley", "google"},
    "model": {"grpc", "tritonclient", "numpy", "google", "opentelemetry"},
    "embedding": {"grpc", "tritonclient", "numpy", "google"},
    "index": {"pymilvus", "grpc"},
    "phrasings": {"numpy"},
    "storage": {"obstore"},
    "turnlog": {"redis", "parley", "google"},
    "metrics": {"prometheus_client"},
    "passwords": {"argon2"},
    "signing": {"cryptography", "jwt"},
    "web": set(),  # knows the shelf's client for addresses that users name
}
OUTSIDE = {
    "argon2", "asyncpg", "cryptography", "google", "grpc", "httpcore", "jwt", "nats", "numpy", "obstore",
    "opentelemetry", "parley", "parley_sdk", "prometheus_client", "pymilvus", "redis", "tritonclient",
}  # fmt: skip

VALUES_OF_THE_SHELF = ("services.shared.errors", "services.shared.pages", "services.shared.outbound.url")


@functools.cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("services", include_external_packages=True, cache_dir=None)


def modules(service: str) -> list[str]:
    return sorted(name for name in graph().modules if name.startswith(f"services.{service}."))


def imported_packages(module: str) -> set[str]:
    return {name.partition(".")[0] for name in graph().find_modules_directly_imported_by(module)}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_never_imports_another_service(service: str) -> None:
    for module in [f"services.{service}", *modules(service)]:
        for name in graph().find_modules_directly_imported_by(module):
            own = name.startswith((f"services.{service}.", "services.shared.")) or name == f"services.{service}"
            assert not name.startswith("services.") or own, f"{module} imports {name}"


@pytest.mark.parametrize("service", SERVICES)
def test_the_domain_knows_no_outside_system_and_no_outer_layer(service: str) -> None:
    for module in modules(service):
        role = module.rpartition(".")[2]
        if role in {WIRING, HANDLERS, WIRE, SETTINGS, *ADAPTERS}:
            continue
        assert not imported_packages(module) & OUTSIDE, f"{module} is domain"
        for name in graph().find_modules_directly_imported_by(module):
            if name.startswith("services.shared."):
                assert name in VALUES_OF_THE_SHELF, f"{module} imports {name}"
            elif name.startswith("services."):
                inner = name.rpartition(".")[2] not in {WIRING, HANDLERS, WIRE, SETTINGS, *ADAPTERS}
                assert inner, f"{module} is domain and imports {name}"


@pytest.mark.parametrize("service", SERVICES)
def test_an_adapter_knows_one_outside_system(service: str) -> None:
    for module in modules(service):
        role = module.rpartition(".")[2]
        if role in ADAPTERS:
            foreign = imported_packages(module) & OUTSIDE - ADAPTERS[role]
            assert not foreign, f"{module} imports {foreign}"


@pytest.mark.parametrize("service", SERVICES)
def test_handlers_and_wire_import_no_adapter(service: str) -> None:
    for role in (HANDLERS, WIRE):
        module = f"services.{service}.{role}"
        for name in graph().find_modules_directly_imported_by(module):
            assert not (name.startswith(f"services.{service}.") and name.rpartition(".")[2] in ADAPTERS), name


def stubs_imported(path: Path) -> set[str]:
    """Names such as parley.session.v1.turn_record_service_pb2_grpc."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if "_service_pb2" in name}


@pytest.mark.parametrize("service", SERVICES)
def test_only_peers_imports_the_stubs_of_another_service(service: str) -> None:
    for path in (PROJECT / "services" / service).glob("*.py"):
        foreign = {name for name in stubs_imported(path) if not name.startswith(f"parley.{service}.")}
        assert not foreign or path.stem == "peers", f"{path.name} imports {foreign}"


def test_the_shelf_imports_no_service() -> None:
    for module in (name for name in graph().modules if name.startswith("services.shared")):
        for name in graph().find_modules_directly_imported_by(module):
            assert not name.startswith("services.") or name.startswith("services.shared"), f"{module} imports {name}"
