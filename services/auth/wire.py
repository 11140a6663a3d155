"""Between the messages of parley.auth.v1 and the values of the domain."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

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
    return Registration(
        request_id=UUID(request.request_id),
        organisation_name=request.organisation_name,
        email=request.email,
        password=request.password,
        display_name=request.display_name,
    )


def user(value: User) -> auth_pb2.User:
    return auth_pb2.User(
        id=str(value.id),
        tenant_id=str(value.tenant_id),
        email=value.email,
        display_name=value.display_name,
        role=_ROLES[value.role],
        create_time=_timestamp(value.create_time),
    )


def token_pair(value: TokenPair) -> auth_pb2.TokenPair:
    return auth_pb2.TokenPair(
        access_token=value.access_token,
        access_expire_time=_timestamp(value.access_expire_time),
        refresh_token=value.refresh_token,
        refresh_expire_time=_timestamp(value.refresh_expire_time),
    )


def jwk(key: Mapping[str, str]) -> auth_pb2.Jwk:
    """Members that the contract does not name stay out."""
    return auth_pb2.Jwk(**{name: key[name] for name in auth_pb2.Jwk.DESCRIPTOR.fields_by_name})


def _timestamp(value: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp
