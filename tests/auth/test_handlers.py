"""parley.auth.v1 over a real in-process server, refusals included."""

from collections.abc import AsyncIterator, Awaitable
from functools import partial
from uuid import UUID, uuid4

import grpc
import jwt
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from parley.auth.v1 import auth_pb2, auth_service_pb2
from parley.auth.v1.auth_service_pb2_grpc import AuthServiceStub, add_AuthServiceServicer_to_server
from parley.auth.v1.user_service_pb2 import GetMeRequest
from parley.auth.v1.user_service_pb2_grpc import UserServiceStub, add_UserServiceServicer_to_server
from services.auth.handlers import RULES, AuthService, UserService
from services.auth.signing import PublishedKeys
from services.shared.errors import Reason
from tests.auth.conftest import PASSWORD, Domain
from tests.conftest import ServeLocally, Signer
from tests.refusals import details_of, failure_of, reason_of


@pytest.fixture
async def channel(domain: Domain, signer: Signer, serve_locally: ServeLocally) -> AsyncIterator[grpc.aio.Channel]:
    auth = AuthService(domain.sign_in, domain.sessions, PublishedKeys(signer.jwks_file).all)
    async with serve_locally(
        partial(add_AuthServiceServicer_to_server, auth),
        partial(add_UserServiceServicer_to_server, UserService(domain.store)),
        rules=RULES,
    ) as opened:
        yield opened


@pytest.fixture
def auth(channel: grpc.aio.Channel) -> AuthServiceStub:
    return AuthServiceStub(channel)


@pytest.fixture
def users(channel: grpc.aio.Channel) -> UserServiceStub:
    return UserServiceStub(channel)


def a_request(**changes: str) -> auth_service_pb2.RegisterRequest:
    values = {
        "request_id": str(uuid4()),
        "organisation_name": "Acme",
        "email": "Ada@example.org",
        "password": PASSWORD,
        "display_name": "Ada",
    }
    return auth_service_pb2.RegisterRequest(**{**values, **changes})


async def refused(call: Awaitable[object], code: grpc.StatusCode, reason: Reason) -> grpc.aio.AioRpcError:
    error = await failure_of(call)
    assert (error.code(), reason_of(error)) == (code, reason)
    return error


async def test_register_answers_with_the_owner_and_tokens(auth: AuthServiceStub, domain: Domain) -> None:
    answer = await auth.Register(a_request())
    assert (answer.user.email, answer.user.display_name) == ("ada@example.org", "Ada")
    assert answer.user.role == auth_pb2.ROLE_OWNER
    assert answer.user.create_time == timestamp(domain)
    assert answer.tokens.refresh_expire_time.seconds - answer.user.create_time.seconds == 14 * 24 * 3600
    assert answer.tokens.access_expire_time.seconds - answer.user.create_time.seconds == 600


async def test_register_again_with_the_same_request_id_signs_in(auth: AuthServiceStub) -> None:
    request = a_request()
    first, second = await auth.Register(request), await auth.Register(request)
    assert first.user == second.user
    assert first.tokens.refresh_token != second.tokens.refresh_token


async def test_register_refuses_a_taken_address(auth: AuthServiceStub) -> None:
    await auth.Register(a_request())
    await refused(auth.Register(a_request()), grpc.StatusCode.ALREADY_EXISTS, Reason.EMAIL_TAKEN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", "no-uuid"),
        ("request_id", ""),
        ("organisation_name", ""),
        ("organisation_name", "x" * 101),
        ("email", "nobody"),
        ("email", "a\0@example.org"),
        ("email", "x" * 250 + "@y.org"),
        ("password", "short"),
        ("password", "x" * 201),
        ("display_name", "x" * 101),
    ],
)
async def test_register_names_the_bad_field(auth: AuthServiceStub, domain: Domain, field: str, value: str) -> None:
    call = auth.Register(a_request(**{field: value}))
    error = await refused(call, grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_FIELD)
    (violation,) = details_of(error)["BadRequest"].field_violations
    assert violation.field == field
    assert domain.store.facts == []


async def test_login_answers_with_the_user_and_tokens(auth: AuthServiceStub) -> None:
    registered = await auth.Register(a_request())
    answer = await auth.Login(auth_service_pb2.LoginRequest(email="ADA@example.org", password=PASSWORD))
    assert answer.user == registered.user
    assert answer.tokens.access_token


@pytest.mark.parametrize(("email", "password"), [("ada@example.org", "wrong"), ("nobody@example.org", PASSWORD)])
async def test_login_does_not_say_what_was_wrong(auth: AuthServiceStub, email: str, password: str) -> None:
    await auth.Register(a_request())
    call = auth.Login(auth_service_pb2.LoginRequest(email=email, password=password))
    error = await refused(call, grpc.StatusCode.UNAUTHENTICATED, Reason.BAD_CREDENTIALS)
    assert error.details() == "The e-mail address is unknown or the password is wrong."


@pytest.mark.parametrize(
    ("email", "password"), [("", PASSWORD), ("no at sign", PASSWORD), ("a@b", ""), ("a@b", "x" * 201)]
)
async def test_login_refuses_what_can_never_be_right(auth: AuthServiceStub, email: str, password: str) -> None:
    call = auth.Login(auth_service_pb2.LoginRequest(email=email, password=password))
    await refused(call, grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_FIELD)


async def test_login_refuses_a_zero_character(auth: AuthServiceStub) -> None:
    call = auth.Login(auth_service_pb2.LoginRequest(email="a\0@example.org", password=PASSWORD))
    await refused(call, grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_FIELD)


async def test_login_says_when_to_come_back_if_too_many_sign_in(auth: AuthServiceStub, domain: Domain) -> None:
    domain.passwords.busy = True
    call = auth.Login(auth_service_pb2.LoginRequest(email="ada@example.org", password=PASSWORD))
    error = await refused(call, grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.SIGN_IN_BUSY)
    assert details_of(error)["RetryInfo"].retry_delay.seconds == 2


@pytest.mark.parametrize("method", ["Register", "Login", "RefreshToken", "Logout"])
@pytest.mark.parametrize("sent", [b"\x0a\x02\xff\xfe", b"\x0a\x7f", b"\xff"], ids=["utf-8", "cut off", "garbage"])
async def test_bytes_that_are_no_message_are_malformed(channel: grpc.aio.Channel, method: str, sent: bytes) -> None:
    call = channel.unary_unary(f"/parley.auth.v1.AuthService/{method}")(sent)
    await refused(call, grpc.StatusCode.INVALID_ARGUMENT, Reason.MALFORMED_REQUEST)


async def test_refresh_trades_a_token_once(auth: AuthServiceStub) -> None:
    first = (await auth.Register(a_request())).tokens
    request = auth_service_pb2.RefreshTokenRequest(refresh_token=first.refresh_token)
    second = (await auth.RefreshToken(request)).tokens
    assert second.refresh_token != first.refresh_token
    await refused(auth.RefreshToken(request), grpc.StatusCode.UNAUTHENTICATED, Reason.REFRESH_TOKEN_REUSED)


async def test_refresh_refuses_an_unknown_token(auth: AuthServiceStub) -> None:
    call = auth.RefreshToken(auth_service_pb2.RefreshTokenRequest(refresh_token="unknown"))
    await refused(call, grpc.StatusCode.UNAUTHENTICATED, Reason.REFRESH_TOKEN_INVALID)


async def test_logout_ends_the_session(auth: AuthServiceStub) -> None:
    token = (await auth.Register(a_request())).tokens.refresh_token
    await auth.Logout(auth_service_pb2.LogoutRequest(refresh_token=token))
    call = auth.RefreshToken(auth_service_pb2.RefreshTokenRequest(refresh_token=token))
    await refused(call, grpc.StatusCode.UNAUTHENTICATED, Reason.REFRESH_TOKEN_INVALID)


async def test_logout_accepts_an_unknown_token(auth: AuthServiceStub) -> None:
    answer = await auth.Logout(auth_service_pb2.LogoutRequest(refresh_token="unknown"))
    assert answer == auth_service_pb2.LogoutResponse()


async def test_the_published_keys_verify_tokens(auth: AuthServiceStub, signer: Signer) -> None:
    (key,) = (await auth.GetJwks(auth_service_pb2.GetJwksRequest())).keys
    assert (key.kty, key.crv, key.alg, key.use) == ("OKP", "Ed25519", "EdDSA", "sig")
    public = jwt.PyJWK({"kty": key.kty, "crv": key.crv, "x": key.x, "alg": key.alg})
    assert jwt.decode(signer.token(), public, algorithms=["EdDSA"], audience="parley-access")


async def test_get_me_answers_with_the_callers_account(
    auth: AuthServiceStub, users: UserServiceStub, signer: Signer
) -> None:
    user = (await auth.Register(a_request())).user
    metadata = signer.metadata(tenant=UUID(user.tenant_id), user=UUID(user.id))
    assert (await users.GetMe(GetMeRequest(), metadata=metadata)).user == user


async def test_get_me_needs_a_token(users: UserServiceStub) -> None:
    await refused(users.GetMe(GetMeRequest()), grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_MISSING)


async def test_get_me_refuses_an_expired_token(users: UserServiceStub, signer: Signer) -> None:
    call = users.GetMe(GetMeRequest(), metadata=signer.metadata(expires_in_s=-1))
    await refused(call, grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_EXPIRED)


async def test_get_me_refuses_a_token_of_another_audience(users: UserServiceStub, signer: Signer) -> None:
    call = users.GetMe(GetMeRequest(), metadata=signer.metadata(aud="parley-api-key"))
    await refused(call, grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_INVALID)


async def test_get_me_refuses_a_token_whose_account_is_in_another_organisation(
    auth: AuthServiceStub, users: UserServiceStub, signer: Signer
) -> None:
    user = (await auth.Register(a_request())).user
    call = users.GetMe(GetMeRequest(), metadata=signer.metadata(tenant=uuid4(), user=UUID(user.id)))
    await refused(call, grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_INVALID)


def timestamp(domain: Domain) -> Timestamp:
    value = Timestamp()
    value.FromDatetime(domain.clock.now)
    return value
