"""Between proto messages and domain values: registrations, users, tokens, keys."""

from collections.abc import Mapping
from uuid import UUID

from parley.auth.v1 import auth_pb2
from parley.auth.v1.auth_service_pb2 import RegisterRequest
from services.auth.account import Registration, Role, User
from services.auth.session import TokenPair

_ROLES = {
    Role.OWNER: auth_pb2.ROLE_OWNER,
    Role.ADMIN: auth_pb2.ROLE_ADMIN,
    Role.MEMBER: auth_pb2.ROLE_MEMBER,
    Role.VIEWER: auth_pb2.ROLE_VIEWER,
}


def registration(request: RegisterRequest) -> Registration:
    """What a request registers."""
    return Registration(
        request_id=UUID(request.request_id),
        organisation_name=request.organisation_name,
        email=request.email,
        password=request.password,
        display_name=request.display_name,
    )


def user(found: User) -> auth_pb2.User:
    """The message of a user."""
    return auth_pb2.User(
        id=str(found.id),
        tenant_id=str(found.tenant_id),
        email=found.email,
        display_name=found.display_name,
        role=_ROLES[found.role],
        create_time=found.create_time,
    )


def token_pair(issued: TokenPair) -> auth_pb2.TokenPair:
    """The message of a pair of tokens."""
    return auth_pb2.TokenPair(
        access_token=issued.access_token,
        access_expire_time=issued.access_expire_time,
        refresh_token=issued.refresh_token,
        refresh_expire_time=issued.refresh_expire_time,
    )


def jwk(key: Mapping[str, str]) -> auth_pb2.Jwk:
    """The message of a key, as RFC 7517 writes it; members that the contract does not name stay out."""
    return auth_pb2.Jwk(**{name: key[name] for name in auth_pb2.Jwk.DESCRIPTOR.fields_by_name})
