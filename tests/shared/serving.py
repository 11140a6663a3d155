"""A service whose methods are given by each test, and calls of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import grpc
from prometheus_client import REGISTRY

from parley.notification.v1.notification_service_pb2 import (
    ListNotificationsRequest,
    ListNotificationsResponse,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import (
    NotificationServiceServicer,
    NotificationServiceStub,
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


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def calls_counted(method: str, code: str) -> float:
    """How many calls of the method ended so, by the metrics."""
    labels = {"method": method, "code": code}
    return REGISTRY.get_sample_value("parley_rpc_duration_seconds_count", labels) or 0


async def list_once(
    channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = (), timeout: float = 10
) -> object:
    return await NotificationServiceStub(channel).ListNotifications(
        ListNotificationsRequest(), metadata=metadata, timeout=timeout
    )
