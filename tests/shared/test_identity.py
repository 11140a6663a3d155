"""Who calls: the user whom the access token names, known before anything else is said."""

import asyncio
import base64
import json
import time
from uuid import uuid4

import grpc
import jwt
import pytest

from parley.notification.v1.notification_service_pb2 import WatchNotificationsRequest
from parley.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from services.shared.errors import Unauthenticated
from services.shared.serving.identity import Caller, TokenVerifier, caller_of
from services.shared.serving.interceptor import CallRules
from tests.conftest import ServeLocally, Signer
from tests.refusals import failure_of, reason_of
from tests.shared.serving import LIST, Context, Given, bearer, list_once

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def test_the_verified_caller_reaches_the_handler(serve_locally: ServeLocally, signer: Signer) -> None:
    seen: list[Caller] = []

    async def remember(context: Context) -> None:
        seen.append(caller_of(context))

    tenant, user = uuid4(), uuid4()
    token = signer.token(tenant=tenant, user=user, role="admin", expires_in_s=60)
    async with serve_locally(Given(remember).register) as channel:
        await list_once(channel, bearer(token))
        await list_once(channel, (("authorization", f"bearer {token}"),))
    first, second = seen
    assert first == second
    assert (first.tenant_id, first.user_id, first.role, first.token) == (tenant, user, "admin", token)
    assert token not in repr(first)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz"])
async def test_a_call_without_a_token_is_refused(serve_locally: ServeLocally, header: str | None) -> None:
    async with serve_locally(Given().register) as channel:
        error = await failure_of(list_once(channel, (("authorization", header),) if header is not None else ()))
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
            error = await failure_of(list_once(channel, bearer(token)))
            assert (error.code(), reason_of(error)) == (UNAUTHENTICATED, "TOKEN_INVALID"), what


def test_a_token_with_odd_characters_is_refused(signer: Signer) -> None:
    for token in ("ü.ü.ü", "\udcff.a.b", "a" * 100_000):
        with pytest.raises(Unauthenticated):
            TokenVerifier(signer.jwks_file).verify(token)


async def test_an_expired_token_is_refused_even_when_it_was_seen_before(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    async with serve_locally(Given().register) as channel:
        error = await failure_of(list_once(channel, signer.metadata(expires_in_s=-1)))
        assert (error.code(), reason_of(error)) == (UNAUTHENTICATED, "TOKEN_EXPIRED")
        ends_s = time.time() + 0.3
        metadata = signer.metadata(exp=ends_s)
        await list_once(channel, metadata)
        await asyncio.sleep(ends_s - time.time())
        error = await failure_of(list_once(channel, metadata))
        assert reason_of(error) == "TOKEN_EXPIRED"


async def test_an_open_method_needs_no_token(serve_locally: ServeLocally) -> None:
    async with serve_locally(Given().register, rules=CallRules(open_methods=frozenset({LIST}))) as channel:
        await list_once(channel)
        error = await failure_of(
            NotificationServiceStub(channel).WatchNotifications(WatchNotificationsRequest()).read()
        )
    assert reason_of(error) == "TOKEN_MISSING"


async def test_a_method_with_grace_takes_a_token_that_expired_within_it(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    async with serve_locally(Given().register, rules=CallRules(token_grace_s={LIST: 60})) as channel:
        await list_once(channel, signer.metadata(expires_in_s=-50))
        error = await failure_of(list_once(channel, signer.metadata(expires_in_s=-70)))
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
