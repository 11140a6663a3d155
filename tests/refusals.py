"""Reading refusals: as any client would, from the status details, and as a peer does."""

from collections.abc import Awaitable

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.shared.errors import Refusal
from services.shared.serving.status import refusal_in


async def failure_of(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error that the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def refusal_of(call: Awaitable[object]) -> Refusal:
    """What a peer would make of the call's end."""
    failed = await failure_of(call)
    refusal = refusal_in(failed)
    assert refusal, failed
    return refusal


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Message]:
    """The rich details of a failed call by message name."""
    found: dict[str, Message] = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for packed in status.details:
                name = packed.TypeName().rpartition(".")[2]
                found[name] = getattr(error_details_pb2, name)()
                packed.Unpack(found[name])
    return found


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The machine-readable reason of a failed call; empty when it carries none."""
    info = details_of(error).get("ErrorInfo")
    return info.reason if info else ""
