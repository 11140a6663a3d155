"""Accounts and sessions in PostgreSQL; each change with its event in one statement."""

from datetime import datetime
from uuid import UUID

import asyncpg

from parley.auth.v1.auth_events_pb2 import SessionRevoked, UserLoggedIn, UserRegistered
from services.auth.account import Credentials, Role, User
from services.auth.session import Rotation, Session, StoredToken
from services.shared.errors import Reason, Unauthenticated
from services.shared.postgres.database import Database


class StoredAccounts:
    """Implements account.Accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_credentials(self, email: str) -> Credentials | None:
        if (row := await self._database.one("find_credentials", email)) is None:
            return None
        return Credentials(
            user=_user(row),
            password_hash=row["password_hash"],
            file_password_hash=row["file_password_hash"],
            registration_digest=row["registration_digest"],
        )

    async def get_user(self, tenant_id: UUID, user_id: UUID) -> User:
        if row := await self._database.one("find_user", tenant_id, user_id):
            return _user(row)
        raise Unauthenticated(Reason.TOKEN_INVALID, "The account of this access token is gone.")

    async def add_owner(self, organisation_name: str, owner: Credentials) -> bool:
        user = owner.user
        event = UserRegistered(
            tenant_id=str(user.tenant_id), user_id=str(user.id), email=user.email, display_name=user.display_name
        )
        added = await self._database.one(
            "add_owner",
            user.tenant_id,
            user.id,
            user.email,
            user.display_name,
            user.create_time,
            owner.password_hash,
            owner.file_password_hash,
            owner.registration_digest,
            organisation_name,
            event.SerializeToString(),
        )
        return added is not None

    async def replace_hash(self, user: User, old_hash: str, new_hash: str) -> None:
        await self._database.one("replace_hash", user.tenant_id, user.id, old_hash, new_hash)

    async def reset_from_file(self, known: Credentials, new_hash: str, now: datetime) -> bool:
        user = known.user
        rows = await self._database.all("live_sessions", user.tenant_id, user.id, now)
        sessions = [Session(row["id"], user) for row in rows]
        reset = await self._database.one(
            "reset_from_file",
            user.tenant_id,
            user.id,
            known.file_password_hash,
            new_hash,
            now,
            [session.id for session in sessions],
            [_revoked(session) for session in sessions],
        )
        return reset is not None


class StoredSessions:
    """Implements session.SessionRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, session: Session, token: StoredToken, now: datetime) -> None:
        user = session.user
        event = UserLoggedIn(tenant_id=str(user.tenant_id), user_id=str(user.id), session_id=str(session.id))
        await self._database.one(
            "open_session",
            user.tenant_id,
            session.id,
            user.id,
            now,
            token.expire_time,
            token.digest,
            event.SerializeToString(),
        )

    async def find_session(self, digest: bytes) -> Session | None:
        row = await self._database.one("find_session", digest)
        return Session(row["session_id"], _user(row)) if row else None

    async def rotate(self, session: Session, digest: bytes, following: StoredToken, now: datetime) -> Rotation:
        row = await self._database.one(
            "rotate",
            session.user.tenant_id,
            session.id,
            digest,
            now,
            following.digest,
            following.expire_time,
            _revoked(session),
        )
        return Rotation(row["outcome"]) if row else Rotation.INVALID

    async def revoke(self, session: Session, now: datetime) -> None:
        await self._database.one("revoke", session.user.tenant_id, session.id, now, _revoked(session))


def _user(row: asyncpg.Record) -> User:
    return User(
        tenant_id=row["tenant_id"],
        id=row["id"],
        email=row["email"],
        display_name=row["display_name"],
        role=Role(row["role"]),
        create_time=row["create_time"],
    )


def _revoked(session: Session) -> bytes:
    user = session.user
    event = SessionRevoked(tenant_id=str(user.tenant_id), user_id=str(user.id), session_id=str(session.id))
    return event.SerializeToString()
