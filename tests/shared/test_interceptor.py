"""What happens around every call, over a real server."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from uuid import UUID

import grpc
import pytest

from parley.notification.v1.notification_pb2 import Notification
from parley.notification.v1.notification_service_pb2 import (
    ListNotificationsRequest,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from tests.conftest import ServeLocally, Signer
from tests.refusals import details_of, failure_of, reason_of
from tests.shared.serving import LIST, WATCH, Context, Given, calls_counted, list_once

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("method", "data"),
    [(LIST, b"\xff\xff"), (LIST, b"\x12\x02\xff\xfe"), (WATCH, b"\x08"), (LIST, b"\x0a" * 5)],
    ids=["no message", "invalid UTF-8", "cut off", "groups without end"],
)
async def test_bytes_that_are_no_message_are_refused(
    serve_locally: ServeLocally, signer: Signer, method: str, data: bytes
) -> None:
    async with serve_locally(Given().register) as channel:
        call = channel.unary_stream(method)(data, metadata=signer.metadata(), timeout=10)
        error = await failure_of(call.read())
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_every_broken_rule_is_listed(serve_locally: ServeLocally, signer: Signer) -> None:
    request = ListNotificationsRequest(page_size=101, page_token="x" * 301)
    async with serve_locally(Given().register) as channel:
        stub = NotificationServiceStub(channel)
        error = await failure_of(stub.ListNotifications(request, metadata=signer.metadata(), timeout=10))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    violations = details_of(error)["BadRequest"].field_violations
    assert {fault.field for fault in violations} == {"page_size", "page_token"}
    assert all("must be" in fault.description for fault in violations)


async def test_a_null_character_is_a_broken_rule(serve_locally: ServeLocally, signer: Signer) -> None:
    request = ListNotificationsRequest(page_token="a\0b")
    async with serve_locally(Given().register) as channel:
        stub = NotificationServiceStub(channel)
        error = await failure_of(stub.ListNotifications(request, metadata=signer.metadata(), timeout=10))
    assert [fault.field for fault in details_of(error)["BadRequest"].field_violations] == ["page_token"]


async def test_nothing_is_said_of_a_request_before_the_caller_is_known(serve_locally: ServeLocally) -> None:
    async with serve_locally(Given().register) as channel:
        error = await failure_of(channel.unary_unary(LIST)(b"\xff", timeout=10))
    assert reason_of(error) == "TOKEN_MISSING"


async def test_an_unknown_method_is_unimplemented(serve_locally: ServeLocally, signer: Signer) -> None:
    async with serve_locally(Given().register) as channel:
        call = channel.unary_unary("/parley.notification.v1.NotificationService/Forget")
        error = await failure_of(call(b"", metadata=signer.metadata(), timeout=10))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_defect_shows_a_trace_id_and_nothing_else(
    serve_locally: ServeLocally, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(context: Context) -> None:
        raise ZeroDivisionError("the secret of /etc/parley")

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    traceparent = ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01")
    async with serve_locally(Given(broken).register) as channel:
        error = await failure_of(list_once(channel, (*signer.metadata(), traceparent)))
    info = details_of(error)["ErrorInfo"]
    assert (error.code(), info.reason, dict(info.metadata)) == (
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        {"trace_id": trace_id},
    )
    assert trace_id in error.details()
    shown = error.details() + str(error.trailing_metadata())
    assert not [word for word in ("secret", "ZeroDivision", "Traceback", ".py") if word in shown]
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert (logged.exc_info[0], logged.facts["trace_id"]) == (ZeroDivisionError, trace_id)


async def test_a_defect_in_the_middle_of_a_stream_is_reported_the_same_way(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    async def broken(context: Context) -> AsyncIterator[WatchNotificationsResponse]:
        yield WatchNotificationsResponse()
        raise KeyError("secret")

    async with serve_locally(Given(stream=broken).register) as channel:
        call = NotificationServiceStub(channel).WatchNotifications(
            WatchNotificationsRequest(), metadata=signer.metadata(), timeout=10
        )
        assert await call.read() == WatchNotificationsResponse()
        error = await failure_of(call.read())
    assert reason_of(error) == "INTERNAL"
    assert "secret" not in str(error)


async def test_a_cancelled_call_cancels_the_handler_and_is_recorded_as_such(
    serve_locally: ServeLocally, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(context: Context) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    before = calls_counted(LIST, "CANCELLED")
    async with serve_locally(Given(wait).register) as channel:
        call = asyncio.create_task(list_once(channel, signer.metadata()))
        async with asyncio.timeout(5):
            await began.wait()
            call.cancel()
            await cancelled.wait()
    assert calls_counted(LIST, "CANCELLED") == before + 1
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_stream_that_nobody_reads_on_is_recorded_as_cancelled(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    large = WatchNotificationsResponse(notification=Notification(id="x" * 1_000_000))
    left = asyncio.Event()

    async def flood(context: Context) -> AsyncIterator[WatchNotificationsResponse]:
        try:
            while True:
                yield large
        finally:
            left.set()

    before = calls_counted(WATCH, "CANCELLED"), calls_counted(WATCH, "OK")
    async with serve_locally(Given(stream=flood).register) as channel:
        call = NotificationServiceStub(channel).WatchNotifications(
            WatchNotificationsRequest(), metadata=signer.metadata(), timeout=10
        )
        await call.read()
        call.cancel()
        async with asyncio.timeout(5):
            await left.wait()
    assert (calls_counted(WATCH, "CANCELLED"), calls_counted(WATCH, "OK")) == (before[0] + 1, before[1])


async def test_each_call_is_one_log_line_without_content(
    serve_locally: ServeLocally, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    tenant, token = UUID(int=7), "a secret page token"
    metadata = signer.metadata(tenant=tenant)
    with caplog.at_level(logging.INFO, "parley.rpc"):
        async with serve_locally(Given().register) as channel:
            request = ListNotificationsRequest(page_token=token)
            await NotificationServiceStub(channel).ListNotifications(request, metadata=metadata, timeout=10)
    (line,) = [record for record in caplog.records if record.name == "parley.rpc"]
    assert (line.facts["method"], line.facts["code"], line.facts["tenant"]) == (LIST, "OK", tenant)
    assert line.facts["milliseconds"] > 0
    assert len(line.facts["trace_id"]) == 32
    written = json.dumps(line.facts, default=str)
    assert token not in written
    assert metadata[0][1] not in written
