"""Reflection: any replica of any service describes every public service, because the edge asks only one of them."""

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
from google.api import annotations_pb2
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

import parley


def enable(server: grpc.aio.Server, own_services: Iterable[str]) -> None:
    """Add reflection of the public services and of `own_services` (full proto names) to a server."""
    names = {*own_services, *_public_services(), health.SERVICE_NAME, reflection.SERVICE_NAME}
    reflection.enable_server_reflection(sorted(names), server)


def _public_services() -> Iterator[str]:
    """Services with REST paths; importing their modules is what makes gRPC able to describe them."""
    for root in map(Path, parley.__path__):
        for file in root.rglob("*_service_pb2.py"):
            name = ".".join((parley.__name__, *file.relative_to(root).with_suffix("").parts))
            for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values():
                if all(method.GetOptions().HasExtension(annotations_pb2.http) for method in service.methods):
                    yield service.full_name
