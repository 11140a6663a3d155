"""The RPCs of parley.auth.v1: AuthService for who has no token yet, UserService for who has one."""

from collections.abc import Callable, Iterable, Mapping

import grpc

from parley.auth.v1 import auth_service_pb2, user_service_pb2
from parley.auth.v1.auth_service_pb2_grpc import AuthServiceServicer
from parley.auth.v1.user_service_pb2_grpc import UserServiceServicer
from services.auth import wire
from services.auth.account import Accounts
from services.auth.session import Sessions
from services.auth.sign_in import SignIn
from services.shared.serving.identity import caller_of
from services.shared.serving.interceptor import CallRules

_AUTH_SERVICE = auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"]
_AUTH_METHODS = (f"/{_AUTH_SERVICE.full_name}/{method.name}" for method in _AUTH_SERVICE.methods)

# Whoever calls AuthService has no token yet.
RULES = CallRules(open_methods=frozenset(_AUTH_METHODS))


class AuthService(AuthServiceServicer):
    """Sign-up, sign-in, refresh, sign-out and the public keys."""

    def __init__(
        self, sign_in: SignIn, sessions: Sessions, published_keys: Callable[[], Iterable[Mapping[str, str]]]
    ) -> None:
        """`published_keys` reads the keys of the JWKS file, as RFC 7517 writes them."""
        self._sign_in = sign_in
        self._sessions = sessions
        self._published_keys = published_keys

    async def Register(
        self, request: auth_service_pb2.RegisterRequest, context: grpc.aio.ServicerContext
    ) -> auth_service_pb2.RegisterResponse:
        user, tokens = await self._sign_in.register(wire.registration(request))
        return auth_service_pb2.RegisterResponse(user=wire.user(user), tokens=wire.token_pair(tokens))

    async def Login(
        self, request: auth_service_pb2.LoginRequest, context: grpc.aio.ServicerContext
    ) -> auth_service_pb2.LoginResponse:
        user, tokens = await self._sign_in.login(request.email, request.password)
        return auth_service_pb2.LoginResponse(user=wire.user(user), tokens=wire.token_pair(tokens))

    async def RefreshToken(
        self, request: auth_service_pb2.RefreshTokenRequest, context: grpc.aio.ServicerContext
    ) -> auth_service_pb2.RefreshTokenResponse:
        tokens = await self._sessions.refresh(request.refresh_token)
        return auth_service_pb2.RefreshTokenResponse(tokens=wire.token_pair(tokens))

    async def Logout(
        self, request: auth_service_pb2.LogoutRequest, context: grpc.aio.ServicerContext
    ) -> auth_service_pb2.LogoutResponse:
        await self._sessions.end(request.refresh_token)
        return auth_service_pb2.LogoutResponse()

    async def GetJwks(
        self, request: auth_service_pb2.GetJwksRequest, context: grpc.aio.ServicerContext
    ) -> auth_service_pb2.GetJwksResponse:
        return auth_service_pb2.GetJwksResponse(keys=map(wire.jwk, self._published_keys()))


class UserService(UserServiceServicer):
    """The accounts of the caller's organisation."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def GetMe(
        self, request: user_service_pb2.GetMeRequest, context: grpc.aio.ServicerContext
    ) -> user_service_pb2.GetMeResponse:
        caller = caller_of(context)
        user = await self._accounts.get_user(caller.tenant_id, caller.user_id)
        return user_service_pb2.GetMeResponse(user=wire.user(user))
