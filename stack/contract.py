"""What the contract says to the edge: the public methods, and the edge's own refusals in the form services use.

A method is public when the allow-list lets `edge` call its service; there is no other list of routes.
"""

import functools
import json
import re
import tomllib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import grpc
import yaml
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from stack.mesh import PROJECT

DESCRIPTORS = PROJECT / "gen" / "descriptors" / "parley.binpb"
ALLOW_LIST = PROJECT / "services" / "shared" / "serving" / "allow_list.toml"
REFUSALS = PROJECT / "envoy" / "refusals.yaml"
OPEN_SERVICES = frozenset({"parley.auth.v1.AuthService"})
"""Their methods are what one calls to get a token."""
READING_VERBS = ("Get", "List", "Search", "BatchGet")


@dataclass(frozen=True, kw_only=True)
class Method:
    service: str
    """Full proto name, parley.chat.v1.ChatService."""
    name: str
    client_streams: bool
    server_streams: bool
    verb: str
    """Of its google.api.http rule: GET, POST, PATCH, DELETE; like the next two empty where there is none."""
    rest_path: str
    """The path template of the same rule."""
    body: str
    """Full name of the message that a REST body holds."""

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    @property
    def cluster(self) -> str:
        return self.service.split(".")[1]

    @property
    def streams(self) -> bool:
        return self.client_streams or self.server_streams

    @property
    def idempotent(self) -> bool:
        """Whether whoever stands between may repeat it: a unary call whose verb reads.

        Never a stream: only its reader knows what has come, and goes on from there.
        """
        return not self.streams and self.name.startswith(READING_VERBS)

    @property
    def lua_pattern(self) -> str:
        literals = re.split(r"{[^}]+}", self.rest_path)
        return "^" + "[^/]+".join(re.sub(r"(\W)", r"%\1", literal) for literal in literals) + "$"

    @property
    def open(self) -> bool:
        return self.service in OPEN_SERVICES


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One row of envoy/refusals.yaml, with the two forms in which a client gets it."""

    reason: str
    when: str
    http_status: int
    retry_after_s: int
    grpc_status: int
    grpc_message: str
    """Percent-encoded, as the header wants it."""
    grpc_details: str
    """A google.rpc.Status, base64 without padding."""
    json: str
    """The same as a flow mapping for Envoy's json_format."""


def methods() -> Iterator[Method]:
    """Every method of the contract, those of internal services too."""
    messages = _messages()
    for file in _descriptors().file:
        for service in file.service:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                verb = rule.WhichOneof("pattern") or ""
                request = method.input_type.removeprefix(".")
                if rule.body not in ("", "*"):
                    request = next(_held(f, messages) for f in messages[request].field if f.name == rule.body)
                yield Method(
                    service=f"{file.package}.{service.name}",
                    name=method.name,
                    client_streams=method.client_streaming,
                    server_streams=method.server_streaming,
                    verb=verb.upper(),
                    rest_path=getattr(rule, verb) if verb else "",
                    body=request if rule.body else "",
                )


def public_methods() -> list[Method]:
    callers = tomllib.loads(ALLOW_LIST.read_text())
    return [method for method in methods() if "edge" in callers.get(method.service, ())]


def refusals() -> list[Refusal]:
    return [_refusal(row) for row in yaml.safe_load(REFUSALS.read_text())]


def request_fields() -> Mapping[str, Mapping[str, str]]:
    """For each message that a REST body can hold: its fields by both their names, with the message that each holds."""
    messages, found = _messages(), dict[str, dict[str, str]]()
    waiting = [method.body for method in public_methods() if method.body]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        held = {field.name: _held(field, messages) for field in messages[name].field}
        json_names = {field.json_name: held[field.name] for field in messages[name].field}
        found[name] = held | json_names
        waiting += filter(None, held.values())
    return found


def _held(field: FieldDescriptorProto, messages: Mapping[str, DescriptorProto]) -> str:
    """The message of our own in a field; empty for scalars and for Google's types, which JSON writes as scalars."""
    name = field.type_name.removeprefix(".")
    return name if name in messages else ""


def _messages() -> Mapping[str, DescriptorProto]:
    ours = [file for file in _descriptors().file if file.package.startswith("parley.")]
    return {f"{file.package}.{message.name}": message for file in ours for message in file.message_type}


@functools.cache
def _descriptors() -> FileDescriptorSet:
    return FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def _refusal(row: dict) -> Refusal:
    code: int = grpc.StatusCode[row["grpc"]].value[0]
    retry_after_s = row.get("retry_after_s", 0)
    status = status_pb2.Status(code=code, message=row["message"])
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=row["reason"], domain="parley"))
    if retry_after_s:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(retry_after_s)
        status.details.add().Pack(retry)
    body = json_format.MessageToDict(status)
    if row.get("detail"):
        body["message"] += " %LOCAL_REPLY_BODY%"
    return Refusal(
        reason=row["reason"],
        when=row["when"],
        http_status=row["http"],
        retry_after_s=retry_after_s,
        grpc_status=code,
        # "%" marks Envoy's own substitutions and is doubled.
        grpc_message=quote(row["message"], safe=" :,.'`").replace("%", "%%"),
        grpc_details=b64encode(status.SerializeToString()).decode().rstrip("="),
        json=json.dumps(body),
    )
