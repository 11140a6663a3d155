"""Channels to peers: mutual TLS, every replica in turn, retries as data, the user's token and the trace handed on."""

import json
from collections.abc import Sequence

import grpc
from opentelemetry import propagate

from services.shared.serving import telemetry
from services.shared.serving.settings import ServingSettings
from services.shared.serving.tls import channel_credentials


def open_channel(
    target: str, peer: str, settings: ServingSettings, *, idempotent: Sequence[tuple[str, str]] = ()
) -> grpc.aio.Channel:
    """A channel to the service `peer` at `target` (a gRPC target such as ipv4:127.0.0.1:5001,127.0.0.1:5002).

    `idempotent` names the (proto service, method) pairs that are retried when a replica is UNAVAILABLE.
    """
    options = [
        ("grpc.service_config", json.dumps(_service_config(idempotent))),
        ("grpc.ssl_target_name_override", peer),
        ("grpc.keepalive_time_ms", 20_000),
        # A replica that restarted is found again before the next one stops (SETTLING_S of the local mesh).
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]
    credentials = channel_credentials(settings)
    interceptors = telemetry.client_interceptors()
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def metadata_for(token: str) -> tuple[tuple[str, str], ...]:
    """What a call made for a user carries: the user's token and the running trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return (("authorization", f"Bearer {token}"), *carrier.items())


def _service_config(idempotent: Sequence[tuple[str, str]]) -> dict[str, object]:
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if idempotent:
        config["methodConfig"] = [
            {
                "name": [{"service": service, "method": method} for service, method in idempotent],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    # A gRPC server that closes answers CANCELLED to what it had not begun.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
    return config
