"""What comes in: the calls of users, and the events of other services."""

import logging
from collections.abc import AsyncIterator

import grpc

from parley.notification.v1.notification_service_pb2 import (
    ListNotificationsRequest,
    ListNotificationsResponse,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceServicer
from services.notification import wire
from services.notification.follow import Follow
from services.notification.notification import Notifications, Owner
from services.shared.events.consumer import Event
from services.shared.pages import DEFAULT_SIZE
from services.shared.serving.identity import caller_of
from services.shared.serving.interceptor import CallRules

RULES = CallRules(endless_methods=frozenset({"/parley.notification.v1.NotificationService/WatchNotifications"}))
_log = logging.getLogger("parley.notification")


class NotificationService(NotificationServiceServicer):
    """The caller's own feed."""

    def __init__(self, notifications: Notifications, follow: Follow) -> None:
        self._notifications = notifications
        self._follow = follow

    async def ListNotifications(
        self, request: ListNotificationsRequest, context: grpc.aio.ServicerContext
    ) -> ListNotificationsResponse:
        size = request.page_size or DEFAULT_SIZE
        before = wire.before_sequence(request.page_token)
        found = await self._notifications.newest(_owner(context), before, size + 1)
        page = found[:size]
        return ListNotificationsResponse(
            notifications=map(wire.notification, page),
            next_page_token=wire.older_token(page[-1]) if len(found) > size else "",
        )

    async def WatchNotifications(
        self, request: WatchNotificationsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[WatchNotificationsResponse]:
        expires_at_s = caller_of(context).expires_at_s
        async for found in self._follow(_owner(context), request.after_sequence, expires_at_s):
            yield WatchNotificationsResponse(notification=wire.notification(found))


class Intake:
    """The events of the durable consumer notification-feed: each becomes an entry of its user's feed, once."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def take(self, event: Event) -> None:
        """Add the entry that the event makes; an event that says nothing to users is only logged."""
        if (heard := wire.heard(event.type, event.payload)) is None:
            _log.info("an event that says nothing to users", extra={"facts": _facts(event)})
            return
        user_id, subject = heard
        await self._notifications.add(event.id, Owner(event.tenant_id, user_id), subject, event.time)

    async def give_up(self, event: Event) -> None:
        """Say which event reached no feed; the outbox of the service that published it still holds it."""
        _log.error("an event reached no feed", extra={"facts": _facts(event)})


def _owner(context: grpc.aio.ServicerContext) -> Owner:
    caller = caller_of(context)
    return Owner(caller.tenant_id, caller.user_id)


def _facts(event: Event) -> dict[str, object]:
    return {"event_id": event.id, "event_type": event.type, "tenant": event.tenant_id}
