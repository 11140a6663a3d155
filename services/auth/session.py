"""Sessions and their tokens.

A session is opened by a sign-in and lives as long as its refresh tokens are traded. A refresh token is 256 random
bits, stored as SHA-256 only (random input needs no slow hash), and works once: trading it gives the next. If one comes
a second time, either the client or a thief holds a stale copy; which of them can't be known, so the session ends for
both. The store decides all of this in one statement, so that of simultaneous refreshes exactly one wins.

Access tokens are not recalled: after a revocation they work until they expire, so `access_s` is the time for which a
stolen one is good. `refresh_s` is how long a user may stay away without a new sign-in.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid4

from services.auth.account import User
from services.shared.errors import Reason, Unauthenticated

_SECRET_BYTES = 32


@dataclass(frozen=True)
class Lifetimes:
    """How long each kind of token works, in seconds."""

    access_s: float
    refresh_s: float


@dataclass(frozen=True)
class Session:
    """One sign-in of a user."""

    id: UUID
    user: User


@dataclass(frozen=True)
class StoredToken:
    """What is kept of a refresh token."""

    digest: bytes
    expire_time: datetime


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """What the client gets."""

    access_token: str = field(repr=False)
    access_expire_time: datetime
    refresh_token: str = field(repr=False)
    refresh_expire_time: datetime


class Rotation(StrEnum):
    """What became of a refresh token that was presented."""

    ROTATED = "rotated"
    REUSED = "reused"
    INVALID = "invalid"


class AccessTokens(Protocol):
    """Signs access tokens."""

    def issue(self, session: Session, issue_time: datetime, expire_time: datetime) -> str:
        """The token; times are cut to seconds."""


class SessionRecords(Protocol):
    """Stored sessions and digests of their refresh tokens."""

    async def open(self, session: Session, token: StoredToken, now: datetime) -> None:
        """A new session with its first token."""

    async def find_session(self, digest: bytes) -> Session | None:
        """The session that a refresh token, used or not, belongs to."""

    async def rotate(self, session: Session, digest: bytes, following: StoredToken, now: datetime) -> Rotation:
        """Use the token up and store the following one; revoke the session if the token was used before."""

    async def revoke(self, session: Session, now: datetime) -> None:
        """End the session, if it has not ended."""


class Sessions:
    """Opens, prolongs and ends sessions. `clock` gives an aware time."""

    def __init__(
        self, records: SessionRecords, access_tokens: AccessTokens, lifetimes: Lifetimes, clock: Callable[[], datetime]
    ) -> None:
        self._records = records
        self._access_tokens = access_tokens
        self._lifetimes = lifetimes
        self._clock = clock

    async def open(self, user: User) -> TokenPair:
        """A new session for a user who has proved who they are."""
        now, session, refresh_token = self._clock(), Session(uuid4(), user), _new_token()
        stored = self._stored(refresh_token, now)
        await self._records.open(session, stored, now)
        return self._pair(session, refresh_token, stored, now)

    async def refresh(self, token: str) -> TokenPair:
        """The next pair. Raises Unauthenticated: REFRESH_TOKEN_INVALID or REFRESH_TOKEN_REUSED."""
        digest = _digest(token)
        if (session := await self._records.find_session(digest)) is None:
            raise _invalid()
        now, refresh_token = self._clock(), _new_token()
        stored = self._stored(refresh_token, now)
        match await self._records.rotate(session, digest, stored, now):
            case Rotation.ROTATED:
                return self._pair(session, refresh_token, stored, now)
            case Rotation.REUSED:
                message = "This refresh token was used before, so its session was ended: sign in again."
                raise Unauthenticated(Reason.REFRESH_TOKEN_REUSED, message)
            case Rotation.INVALID:
                raise _invalid()

    async def end(self, token: str) -> None:
        """End the session of a refresh token; an unknown token ends nothing."""
        if session := await self._records.find_session(_digest(token)):
            await self._records.revoke(session, self._clock())

    def _stored(self, token: str, now: datetime) -> StoredToken:
        return StoredToken(_digest(token), now + timedelta(seconds=self._lifetimes.refresh_s))

    def _pair(self, session: Session, refresh_token: str, stored: StoredToken, now: datetime) -> TokenPair:
        # Whole seconds, as in the token, so that the client is told exactly when the token stops working.
        access_expire_time = (now + timedelta(seconds=self._lifetimes.access_s)).replace(microsecond=0)
        return TokenPair(
            access_token=self._access_tokens.issue(session, now, access_expire_time),
            access_expire_time=access_expire_time,
            refresh_token=refresh_token,
            refresh_expire_time=stored.expire_time,
        )


def _new_token() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _invalid() -> Unauthenticated:
    message = "The refresh token is unknown, expired or logged out: sign in again."
    return Unauthenticated(Reason.REFRESH_TOKEN_INVALID, message)
