"""A stream that is silent for minutes stays open: what could end it, and a real one in time that runs faster."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
import yaml

from parley.chat.v1 import chat_service_pb2, chat_service_pb2_grpc
from services.shared.serving.settings import ServingSettings
from stack import contract, envoy
from tests.conftest import Signer
from tests.edge.conftest import Edge, edge_in_front

HOUR_S = 3600.0
FASTER = 100
SILENCE_S = 330 / FASTER
"""More than five minutes."""
SCALED = ("idle_timeout", "stream_idle_timeout", "max_stream_duration", "grpc_timeout_header_max")


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def managers(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The HTTP connection manager of each listener."""
    for listener in config["static_resources"]["listeners"]:
        yield listener["filter_chains"][0]["filters"][0]["typed_config"]


def values(node: Any, name: str) -> Iterator[Any]:
    """Every value under this name, at any depth."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == name)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from values(child, name)


async def test_nothing_at_the_edge_ends_a_silent_stream_before_its_hour(edge: Edge) -> None:
    config = yaml.safe_load(envoy.render(edge.mesh, os.environ))
    streams = {method.path for method in contract.public_methods() if method.server_streams}
    assert streams
    for manager in managers(config):
        routes = {r["match"].get("path"): r["route"] for r in manager["route_config"]["virtual_hosts"][0]["routes"]}
        for path in streams:
            route = routes[path]
            assert (route["timeout"], route["idle_timeout"]) == ("0s", "0s"), path
            assert seconds(route["max_stream_duration"]["max_stream_duration"]) >= HOUR_S, path
    # How long a connection may live, with or without streams, and a whole response may take, has no other limit.
    assert not list(values(config, "max_connection_duration"))
    assert not list(values(config, "per_try_timeout"))
    assert not list(values(config, "per_try_idle_timeout"))
    assert ServingSettings.max_stream_s >= HOUR_S


async def test_pings_notice_a_lost_peer_and_are_never_too_many_for_the_service(edge: Edge) -> None:
    config = yaml.safe_load(envoy.render(edge.mesh, os.environ))
    pings = list(values(config, "connection_keepalive"))
    assert len(pings) == len(list(managers(config))) + len(edge.mesh.endpoints()["metrics"]) - 1  # without Triton
    allowed_s = ServingSettings.keepalive_s / 3
    assert all(allowed_s < seconds(ping["interval"]) <= 60 for ping in pings)


def faster(text: str, change: Callable[[Mapping[str, Any]], None] = lambda _: None) -> str:
    """The configuration with a hundredth of every limit of time that a stream knows."""

    def scale(node: Any) -> None:
        if isinstance(node, list):
            for child in node:
                scale(child)
        if not isinstance(node, dict):
            return
        for name, value in node.items():
            if name in SCALED and isinstance(value, str):
                node[name] = f"{seconds(value) / FASTER:g}s"
            elif name == "connection_keepalive":
                value["interval"] = f"{seconds(value['interval']) / FASTER:g}s"
            elif name == "header" and value["key"] == "grpc-timeout":
                value["value"] = f"{seconds(value['value'].lower()) * 1000 / FASTER:.0f}m"
            else:
                scale(value)

    config = json.loads(json.dumps(yaml.safe_load(text)))  # what YAML's anchors shared is there twice
    change(config)
    scale(config["static_resources"])
    return yaml.safe_dump(config)


def without_route_timeouts(config: Mapping[str, Any]) -> None:
    """The break: routes of streams say nothing of silence."""
    for manager in managers(config):
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            route["route"].pop("idle_timeout", None)


async def words_after_silence(edge: Edge, signer: Signer) -> list[str]:
    """Of a stream that says a word, nothing for more than five (faster) minutes, and another word."""
    request = chat_service_pb2.StartTurnRequest(request_id=str(uuid4()), conversation_id=str(uuid4()), text="one two")
    async with grpc.aio.insecure_channel(edge.target) as channel:
        call = chat_service_pb2_grpc.ChatServiceStub(channel).StartTurn(request, metadata=signer.metadata())
        edge.seen.next_word.set()
        words = []
        async for answer in call:
            words.append(answer.event.text_delta.text)
            asyncio.get_running_loop().call_later(SILENCE_S, edge.seen.next_word.set)
        return words


async def test_a_stream_survives_more_than_five_minutes_of_silence(tmp_path: Path, signer: Signer) -> None:
    scaled = {"keepalive_s": ServingSettings.keepalive_s / FASTER, "max_stream_s": HOUR_S / FASTER}
    async with edge_in_front(tmp_path, signer.jwks_file, {"chat": "chat"}, changed=faster, **scaled) as edge:
        assert await words_after_silence(edge, signer) == ["one", "two"]


async def test_the_test_above_notices_a_limit_of_silence(tmp_path: Path, signer: Signer) -> None:
    def broken(text: str) -> str:
        return faster(text, without_route_timeouts)

    async with edge_in_front(tmp_path, signer.jwks_file, {"chat": "chat"}, changed=broken) as edge:
        with pytest.raises(grpc.aio.AioRpcError):
            await words_after_silence(edge, signer)
