"""A service whose methods are given by each test, and how to read a failed call."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from parley.notification.v1.notification_service_pb2 import (
    ListNotificationsRequest,
    ListNotificationsResponse,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import (
    NotificationServiceServicer,
    add_NotificationServiceServicer_to_server,
)

NAME = "parley.notification.v1.NotificationService"
LIST = f"/{NAME}/ListNotifications"
WATCH = f"/{NAME}/WatchNotifications"
Context = grpc.aio.ServicerContext


class Given(NotificationServiceServicer):
    """Answers as told; by default with an empty page and an empty stream."""

    def __init__(
        self,
        unary: Callable[[Context], Awaitable[object]] | None = None,
        stream: Callable[[Context], AsyncIterator[WatchNotificationsResponse]] | None = None,
    ) -> None:
        self._unary = unary
        self._stream = stream

    async def ListNotifications(self, request: ListNotificationsRequest, context: Context) -> ListNotificationsResponse:
        if self._unary:
            await self._unary(context)
        return ListNotificationsResponse()

    async def WatchNotifications(
        self, request: WatchNotificationsRequest, context: Context
    ) -> AsyncIterator[WatchNotificationsResponse]:
        if self._stream:
            async for message in self._stream(context):
                yield message

    @property
    def register(self) -> Callable[[grpc.aio.Server], None]:
        return partial(add_NotificationServiceServicer_to_server, self)


async def failure_of(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error that the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


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
