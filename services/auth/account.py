"""Who has an account: users, their roles, and what proves that it is them."""

import hashlib
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class Role(StrEnum):
    """What a user may do inside the organisation; the value is the one in tokens."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


@dataclass(frozen=True, kw_only=True)
class User:
    """A person with an account in one organisation."""

    tenant_id: UUID
    id: UUID
    email: str
    display_name: str
    role: Role
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A user and what is stored to know them by. Hashes are Argon2id PHC strings."""

    user: User
    password_hash: str = field(repr=False)
    file_password_hash: str | None = field(default=None, repr=False)
    registration_digest: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What Register is asked for."""

    request_id: UUID
    organisation_name: str
    email: str
    password: str = field(repr=False)
    display_name: str

    @property
    def digest(self) -> bytes:
        """Tells a repeat from another request of the same address. SHA-256 is too fast for the password: left out."""
        parts = (self.request_id.bytes, self.organisation_name.encode(), self.display_name.encode())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


@dataclass(frozen=True)
class PasswordCheck:
    """`replacement`, where given, is a hash of the same password by today's parameters, to be stored instead."""

    matches: bool
    replacement: str | None = field(default=None, repr=False)


class Passwords(Protocol):
    """Slow hashes. Both methods raise Exhausted(SIGN_IN_BUSY) when too many calls wait."""

    async def hash(self, password: str) -> str:
        """A new hash with a new salt."""

    async def check(self, password: str, password_hash: str | None) -> PasswordCheck:
        """Whether the password is the hashed one. None matches nothing and takes as long."""


class Accounts(Protocol):
    """Organisations and their users."""

    async def find_credentials(self, email: str) -> Credentials | None:
        """The account with this normalised address."""

    async def get_user(self, tenant_id: UUID, user_id: UUID) -> User:
        """Raises Unauthenticated(TOKEN_INVALID): ids come from a token, whose account must exist."""

    async def add_owner(self, organisation_name: str, owner: Credentials) -> bool:
        """A new organisation with its owner. False, and nothing is stored, if the address has an account."""

    async def replace_hash(self, user: User, old_hash: str, new_hash: str) -> None:
        """Store another hash of the same password."""

    async def reset_from_file(self, known: Credentials, new_hash: str, now: datetime) -> bool:
        """A new password from the password file; ends the user's sessions. False if another replica did it."""


def normal_email(email: str) -> str:
    """The form in which addresses are stored and compared: NFC, lower case."""
    return unicodedata.normalize("NFC", email).lower()


def normal_password(password: str) -> bytes:
    """The bytes that are hashed: NFC (RFC 8265), because keyboards compose letters in more than one way."""
    return unicodedata.normalize("NFC", password).encode()
