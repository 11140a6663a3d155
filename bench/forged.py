"""Requests that somebody from outside would send, made from the descriptors of the contract.

Every RPC of a package is found by itself, and every field is filled by its name and type: with what the other
organisation has, where it may be known outside, and with strings that break programs. A new RPC needs no line here.
"""

import importlib
import json
import pkgutil
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bench.evalsets import FOLDER

_DEPTH = 4
_INTEGERS = (0, 1, 2, 5, 20, 100, 101, 2**31 - 1, 2**32 - 1, 2**63 - 1)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_INT64: 63,
    FieldDescriptor.CPPTYPE_UINT64: 64,
}
_HOSTILE = (
    "' OR '1'='1",
    '" or tenant_id != "',
    '") or (tenant_id like "%',
    'x" or 1 == 1 or passage_id == "x',
    "'; DROP TABLE documents; --",
    "\\",
    '\\" || true || \\"',
    "%",
    "*",
    "../../..",
    "/",
    "\u0000",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/a}",
    "\u202egpj",
    "\u200b",
    "🤖" * 300,
    "a" * 5000,
    "null",
    "[]",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
)


@dataclass(frozen=True)
class Bait:
    """What the other organisation has and outsiders may know."""

    ids: Sequence[str] = ()
    request_ids: Sequence[str] = ()
    names: Sequence[str] = ()
    texts: Sequence[str] = ()
    tokens: Sequence[str] = ()
    digests: Sequence[str] = ()
    own_ids: Sequence[str] = ()
    """Of the prober."""


@dataclass(frozen=True)
class Forged:
    """One call: its requests are several for a stream from the client."""

    method: MethodDescriptor
    requests: Sequence[Message]

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    def names_one_of(self, ids: Sequence[str]) -> bool:
        """Whether what the call is about is one of these."""
        return any(value.lower() in ids for request in self.requests for value in _subjects(request))

    def say(self) -> str:
        return f"{self.path} {' | '.join(str(request)[:300] for request in self.requests)}"


def services(package: str) -> Sequence[ServiceDescriptor]:
    """Every service of a package of the contract."""
    folder = importlib.import_module(package)
    modules = [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder.__path__)]
    descriptors = [module.DESCRIPTOR for module in modules if hasattr(module, "DESCRIPTOR")]
    return [service for file in descriptors for service in file.services_by_name.values()]


class Forger:
    """Makes calls, the same ones for the same seed."""

    def __init__(self, bait: Bait, methods: Sequence[MethodDescriptor], seed: int) -> None:
        self._bait, self._methods, self._random = bait, methods, random.Random(seed)
        blns = FOLDER / "hostile" / "blns" / "blns.json"
        self._hostile = [*_HOSTILE, *(json.loads(blns.read_text()) if blns.exists() else ())]

    def calls(self, count: int) -> Iterator[Forged]:
        """Of all methods in turn."""
        for number in range(count):
            method = self._methods[number % len(self._methods)]
            messages = self._random.randint(1, 3) if method.client_streaming else 1
            yield Forged(method, [self._message(method.input_type, place) for place in range(messages)])

    def _message(self, kind: Descriptor, place: int = 0, depth: int = 0) -> Message:
        message = GetMessageClass(kind)()
        left_out = {
            other.name
            for oneof in kind.oneofs
            if len(oneof.fields) > 1
            for other in oneof.fields
            if other is not oneof.fields[min(place, len(oneof.fields) - 1)]
        }
        for field in kind.fields:
            if field.name in left_out or self._random.random() > (0.9 if depth == 0 else 0.75):
                continue
            if field.label == FieldDescriptor.LABEL_REPEATED:
                for _ in range(self._random.randint(0, 3)):
                    self._fill(message, field, depth, repeated=True)
            else:
                self._fill(message, field, depth, repeated=False)
        return message

    def _fill(self, message: Message, field: FieldDescriptor, depth: int, *, repeated: bool) -> None:
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if depth < _DEPTH and not field.message_type.GetOptions().map_entry:
                inner = self._message(field.message_type, depth=depth + 1)
                target = getattr(message, field.name)
                (target.add() if repeated else target).CopyFrom(inner)
            return
        value = self._value(field, message)
        if repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def _value(self, field: FieldDescriptor, message: Message) -> Any:
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return self._string("text").encode()[:1000]
            case FieldDescriptor.CPPTYPE_STRING:
                return self._string(field.name)
            case FieldDescriptor.CPPTYPE_ENUM:
                return self._random.choice(field.enum_type.values).number
            case FieldDescriptor.CPPTYPE_BOOL:
                return self._random.random() < 0.5
            case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
                return self._random.choice((0.0, 0.5, 1.0, -1.0, float("nan")))
            case kind:
                most = 2 ** _BITS[kind] - 1
                small = [value for value in _INTEGERS if value <= min(most, 20)]
                every = [value for value in _INTEGERS if value <= most]
                return self._random.choice(small if self._random.random() < 0.8 else every)

    def _string(self, name: str) -> str:
        chosen = self._random.choice(self._known(name))
        return chosen if self._random.random() < 0.8 else str(self._random.choice(self._hostile))

    def _known(self, name: str) -> Sequence[str]:
        bait = self._bait
        match name:
            case "request_id":
                return (*bait.request_ids, str(uuid.UUID(int=self._random.getrandbits(128))))
            case "page_token":
                return ("", *bait.tokens)
            case "sha256":
                return bait.digests
            case "url":
                return ("http://harbour.invalid/", "https://harbour.invalid/a?b=c")
            case "paths":
                return ("collection", "visibility", "filename", "user_id", "tenant_id", "*", "id")
            case _ if name == "id" or name.endswith(("_id", "_ids")):
                return (*bait.ids, *(one.upper() for one in bait.ids), *bait.own_ids)
            case _ if "name" in name or "collection" in name or "title" in name:
                return bait.names
            case _:
                return (*bait.texts, *bait.names, *bait.ids)


def _subjects(message: Message) -> Iterator[str]:
    """The ids that say what a call is about: not those that it filters by."""
    for field, value in message.ListFields():
        if field.label == FieldDescriptor.LABEL_REPEATED:
            continue
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            yield from _subjects(value)
        elif field.name == "id" or (field.name.endswith("_id") and field.name not in ("request_id", "user_id")):
            yield value
