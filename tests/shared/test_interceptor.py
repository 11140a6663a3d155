"""What happens around every call, over a real server."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import grpc
import jwt
import pytest
from prometheus_client import REGISTRY

from parley.notification.v1.notification_pb2 import Notification
from parley.notification.v1.notification_service_pb2 import (
    ListNotificationsRequest,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from services.shared.errors import Unauthenticated
from services.shared.serving import deadline
from services.shared.serving.identity import Caller, TokenVerifier, caller_of
from services.shared.serving.interceptor import CallInterceptor, CallRules
from tests.conftest import ServeLocally, Signer
from tests.shared.serving import LIST, WATCH, Context, Given, details_of, failure_of, reason_of

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _count(method: str, code: str) -> float:
    """How many calls of the method ended so, by the metrics."""
    labels = {"method": method, "code": code}
    return REGISTRY.get_sample_value("parley_rpc_duration_seconds_count", labels) or 0


async def _list(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = (), timeout: float = 10) -> object:
    return await NotificationServiceStub(channel).ListNotifications(
        ListNotificationsRequest(), metadata=metadata, timeout=timeout
    )


# Who calls


async def test_the_verified_caller_reaches_the_handler(serve_locally: ServeLocally, signer: Signer) -> None:
    seen: list[Caller] = []

    async def remember(context: Context) -> None:
        seen.append(caller_of(context))

    tenant, user = uuid4(), uuid4()
    token = signer.token(tenant=tenant, user=user, role="admin", expires_in_s=60)
    async with serve_locally(Given(remember).register) as channel:
        await _list(channel, _bearer(token))
        await _list(channel, (("authorization", f"bearer {token}"),))
    first, second = seen
    assert first == second
    assert (first.tenant_id, first.user_id, first.role, first.token) == (tenant, user, "admin", token)
    assert token not in repr(first)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz"])
async def test_a_call_without_a_token_is_refused(serve_locally: ServeLocally, header: str | None) -> None:
    async with serve_locally(Given().register) as channel:
        error = await failure_of(_list(channel, (("authorization", header),) if header is not None else ()))
    assert (error.code(), reason_of(error)) == (UNAUTHENTICATED, "TOKEN_MISSING")


def _bad_tokens(signer: Signer, stranger: Signer) -> dict[str, str]:
    good = signer.token()
    head, body, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    public = base64.urlsafe_b64decode(json.loads(signer.jwks_file.read_text())["keys"][0]["x"] + "=")
    return {
        "no token at all": "x",
        "signed by a stranger": stranger.token(),
        "another signature": f"{head}.{body}.{signature[::-1]}",
        "another body": f"{head}.{stranger.token().split('.')[1]}.{signature}",
        "of another audience": signer.token(aud="parley-refresh"),
        "of another issuer": signer.token(iss="somebody"),
        "without an audience": signer.token(aud=None),
        "for a subject that is no id": signer.token(sub="root"),
        "for a tenant that is no id": signer.token(tenant="everybody"),
        "for a session that is no id": signer.token(sid=["a"]),
        "without expiry": signer.token(exp=None),
        "HS256 with the public key": jwt.encode(claims, public, "HS256", headers={"kid": "test"}),
        "unsigned": jwt.encode(claims, None, "none", headers={"kid": "test"}),
        "of an unknown key": jwt.encode(claims, "k" * 32, "HS256", headers={"kid": "other"}),
        "without a key id": jwt.encode(claims, "k" * 32, "HS256"),
    }


async def test_a_token_that_is_not_ours_is_refused(
    serve_locally: ServeLocally, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Signer(tmp_path_factory.mktemp("stranger"))
    async with serve_locally(Given().register) as channel:
        for what, token in _bad_tokens(signer, stranger).items():
            error = await failure_of(_list(channel, _bearer(token)))
            assert (error.code(), reason_of(error)) == (UNAUTHENTICATED, "TOKEN_INVALID"), what


def test_a_token_with_odd_characters_is_refused(signer: Signer) -> None:
    for token in ("ü.ü.ü", "\udcff.a.b", "a" * 100_000):
        with pytest.raises(Unauthenticated):
            TokenVerifier(signer.jwks_file).verify(token)


async def test_an_expired_token_is_refused_even_when_it_was_seen_before(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    async with serve_locally(Given().register) as channel:
        error = await failure_of(_list(channel, signer.metadata(expires_in_s=-1)))
        assert (error.code(), reason_of(error)) == (UNAUTHENTICATED, "TOKEN_EXPIRED")
        ends_s = time.time() + 0.3
        metadata = signer.metadata(exp=ends_s)
        await _list(channel, metadata)
        await asyncio.sleep(ends_s - time.time())
        error = await failure_of(_list(channel, metadata))
        assert reason_of(error) == "TOKEN_EXPIRED"


async def test_an_open_method_needs_no_token(serve_locally: ServeLocally) -> None:
    async with serve_locally(Given().register, rules=CallRules(open_methods=frozenset({LIST}))) as channel:
        await _list(channel)
        error = await failure_of(
            NotificationServiceStub(channel).WatchNotifications(WatchNotificationsRequest()).read()
        )
    assert reason_of(error) == "TOKEN_MISSING"


async def test_a_method_with_grace_takes_a_token_that_expired_within_it(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    async with serve_locally(Given().register, rules=CallRules(token_grace_s={LIST: 60})) as channel:
        await _list(channel, signer.metadata(expires_in_s=-50))
        error = await failure_of(_list(channel, signer.metadata(expires_in_s=-70)))
    assert reason_of(error) == "TOKEN_EXPIRED"


def test_new_keys_are_read_when_the_file_changes(tmp_path_factory: pytest.TempPathFactory) -> None:
    old, new = (Signer(tmp_path_factory.mktemp(name)) for name in ("old", "new"))
    verifier = TokenVerifier(old.jwks_file)
    verifier.verify(token := old.token())
    replaced_at_ns = old.jwks_file.stat().st_mtime_ns
    keys = new.jwks_file.read_bytes()
    while old.jwks_file.stat().st_mtime_ns == replaced_at_ns:
        old.jwks_file.write_bytes(keys)
    verifier.verify(new.token())
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


# What is asked


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


# How long it takes


async def test_a_call_ends_at_its_callers_deadline(serve_locally: ServeLocally, signer: Signer) -> None:
    stopped = asyncio.Event()

    async def endless(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serve_locally(Given(endless).register) as channel:
        error = await failure_of(_list(channel, signer.metadata(), timeout=0.3))
        async with asyncio.timeout(5):
            await stopped.wait()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_server_sets_the_longest_time_itself(signer: Signer) -> None:
    async def endless(context: Context) -> AsyncIterator[WatchNotificationsResponse]:
        yield WatchNotificationsResponse()
        await asyncio.Event().wait()

    calls = CallInterceptor(TokenVerifier(signer.jwks_file), CallRules(), None, max_stream_s=0.2)
    server = grpc.aio.server(interceptors=[calls])
    Given(stream=endless).register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = NotificationServiceStub(channel).WatchNotifications(
            WatchNotificationsRequest(), metadata=signer.metadata(), timeout=30
        )
        assert await call.read() == WatchNotificationsResponse()
        error = await failure_of(call.read())
    await server.stop(None)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_too_little_time_is_refused_before_anything_begins(serve_locally: ServeLocally, signer: Signer) -> None:
    begun = 0

    async def begin(context: Context) -> None:
        nonlocal begun
        begun += 1

    refused = _count(LIST, "DEADLINE_EXCEEDED")
    async with serve_locally(Given(begin).register) as channel:
        await channel.channel_ready()
        for _ in range(5):
            error = await failure_of(_list(channel, signer.metadata(), timeout=0.045))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await _list(channel, signer.metadata())
    assert begun == 1
    assert _count(LIST, "DEADLINE_EXCEEDED") > refused  # at least one of them did arrive


async def test_each_call_has_a_deadline_of_its_own(serve_locally: ServeLocally, signer: Signer) -> None:
    left: dict[float, float] = {}
    both = asyncio.Barrier(2)

    async def look(context: Context) -> None:
        await both.wait()
        left[round(context.time_remaining())] = deadline.within(60)

    async with serve_locally(Given(look).register) as channel:
        metadata = signer.metadata()
        await asyncio.gather(_list(channel, metadata, timeout=4), _list(channel, metadata, timeout=8))
    assert left[4] < 4 < left[8] < 8
    assert deadline.within(60) == 60  # outside of any call


# What goes wrong


async def test_a_defect_shows_a_trace_id_and_nothing_else(
    serve_locally: ServeLocally, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(context: Context) -> None:
        raise ZeroDivisionError("the secret of /etc/parley")

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    traceparent = ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01")
    async with serve_locally(Given(broken).register) as channel:
        error = await failure_of(_list(channel, (*signer.metadata(), traceparent)))
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

    before = _count(LIST, "CANCELLED")
    async with serve_locally(Given(wait).register) as channel:
        call = asyncio.create_task(_list(channel, signer.metadata()))
        async with asyncio.timeout(5):
            await began.wait()
            call.cancel()
            await cancelled.wait()
    assert _count(LIST, "CANCELLED") == before + 1
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

    before = _count(WATCH, "CANCELLED"), _count(WATCH, "OK")
    async with serve_locally(Given(stream=flood).register) as channel:
        call = NotificationServiceStub(channel).WatchNotifications(
            WatchNotificationsRequest(), metadata=signer.metadata(), timeout=10
        )
        await call.read()
        call.cancel()
        async with asyncio.timeout(5):
            await left.wait()
    assert (_count(WATCH, "CANCELLED"), _count(WATCH, "OK")) == (before[0] + 1, before[1])


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
