"""Rules of the contract that buf does not know."""

import importlib
import re
from collections.abc import Iterator

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from parley.errors.v1.error_reason_pb2 import ErrorReason
from services.shared.errors import Reason
from stack.mesh import PROJECT, SERVICES

INTERNAL_SERVICES = {"parley.session.v1.TurnRecordService", "parley.knowledge.v1.IndexService"}
PROTOS = sorted((PROJECT / "proto" / "parley").rglob("*.proto"))


def services() -> Iterator[tuple[str, descriptor_pb2.ServiceDescriptorProto]]:
    image = (PROJECT / "gen" / "descriptors" / "parley.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(image).file:
        for service in file.service:
            yield f"{file.package}.{service.name}", service


def test_reasons_in_code_equal_those_of_the_contract() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name}
    assert {reason.value for reason in Reason} == contract - {"UNSPECIFIED"}


def test_every_rpc_is_implemented() -> None:
    for name, service in services():
        folder = PROJECT / "services" / name.split(".")[1]
        modules = (".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in folder.rglob("handlers.py"))
        [handler] = {getattr(importlib.import_module(m), service.name, None) for m in modules} - {None}
        implemented = vars(handler)
        assert {method.name for method in service.method} <= implemented.keys(), name


def test_every_public_rpc_has_a_rest_path_of_its_own() -> None:
    paths: list[str] = []
    for name, service in services():
        for method in service.method:
            rule = method.options.Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            assert bool(verb) is (name not in INTERNAL_SERVICES), f"{name}.{method.name}"
            if verb:
                paths.append(f"{verb} {getattr(rule, verb)}")
    assert len(paths) == len(set(paths))


def test_no_request_names_its_tenant_or_user() -> None:
    for path in PROTOS:
        for name, body in re.findall(r"^message (\w+Request) \{(.*?)^\}", path.read_text(), re.DOTALL | re.MULTILINE):
            assert not re.search(r"\b(tenant_id|user_id)\b", body), f"{path.name}: {name}"


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.stem)
def test_everything_in_the_contract_has_a_comment(path: object) -> None:
    lines = path.read_text().splitlines()
    declared = re.compile(
        r"^\s*((message|enum|service|rpc|oneof) \w+ |((optional|repeated) )?[\w.]+ \w+ = \d+|[A-Z_]+ = \d+)"
    )
    for number, line in enumerate(lines):
        if declared.match(line) and not line.startswith(("syntax", "option")) and "option (" not in line:
            above = next((text for text in reversed(lines[:number]) if text.strip()), "")
            assert above.strip().startswith("//"), f"{path.name}:{number + 1}: {line.strip()}"


def test_every_rpc_comment_names_the_refusals() -> None:
    for path in PROTOS:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.strip().startswith("rpc "):
                comment = []
                while (above := lines[number - 1].strip()).startswith("//"):
                    comment.append(above)
                    number -= 1
                text = " ".join(reversed(comment))
                assert "Refusals: " in text, f"{path.name}: {line.strip()}"
                named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text.partition("Refusals: ")[2]))
                assert named <= {reason.value for reason in Reason}, f"{path.name}: {named}"


HELD = {
    "chat": {"SEARCH_UNAVAILABLE"},
    "knowledge": {
        "DOCUMENT_CORRUPT", "DOCUMENT_ENCRYPTED", "DOCUMENT_WITHOUT_TEXT", "EXTRACTION_LIMIT", "INDEXING_FAILED",
        "UNSUPPORTED_FORMAT",
    },
}  # fmt: skip
"""Reasons with which no call ends: a turn does without its sources, a document keeps why it failed."""


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_refuses_with_stands_in_its_contract(service: str) -> None:
    code = "".join(path.read_text() for path in (PROJECT / "services" / service).rglob("*.py"))
    contract = "".join(path.read_text() for path in (PROJECT / "proto" / "parley" / service).rglob("*_service.proto"))
    raised = set(re.findall(r"\bReason\.([A-Z_]+)\b", code)) - HELD.get(service, set())
    assert raised - {"INTERNAL"} <= set(re.findall(r"\b[A-Z_]+\b", contract))
