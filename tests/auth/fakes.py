"""Auth's ports in memory. The store suite holds them to what PostgreSQL does."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.auth.account import Credentials, PasswordCheck, User
from services.auth.session import Rotation, Session, StoredToken
from services.shared.errors import Exhausted, Invalid, Reason, Unauthenticated

# Event name and the ids it names: (tenant, user) or (tenant, user, session).
Fact = tuple[str, tuple[UUID, ...]]


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> None:
        self.now += timedelta(**parts)


class FakePasswords:
    """A hash is `parameters:password`; `parameters` are today's. While `busy`, nothing is checked."""

    def __init__(self) -> None:
        self.parameters = "v1"
        self.busy = False

    async def hash(self, password: str) -> str:
        return f"{self.parameters}:{password}"

    async def check(self, password: str, password_hash: str | None) -> PasswordCheck:
        if self.busy:
            raise Exhausted(Reason.SIGN_IN_BUSY, "busy", retry_after_s=2)
        parameters, _, hashed = (password_hash or ":").partition(":")
        if not password_hash or hashed != password:
            return PasswordCheck(matches=False)
        outdated = parameters != self.parameters
        return PasswordCheck(matches=True, replacement=await self.hash(password) if outdated else None)


class FakeAccessTokens:
    """Tokens that say what they were issued with."""

    def issue(self, session: Session, issue_time: datetime, expire_time: datetime) -> str:
        user = session.user
        return f"{user.tenant_id} {user.id} {session.id} {user.role.value} {expire_time.isoformat()}"


@dataclass
class _Token:
    session_id: UUID
    expire_time: datetime
    used: bool = False


@dataclass
class _Session:
    session: Session
    expire_time: datetime
    revoked: bool = False


class FakeStore:
    """Both ports of the store, and the outbox."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.organisations: dict[UUID, str] = {}
        self._credentials: dict[str, Credentials] = {}
        self._sessions: dict[UUID, _Session] = {}
        self._tokens: dict[bytes, _Token] = {}

    async def find_credentials(self, email: str) -> Credentials | None:
        _storable(email)
        return self._credentials.get(email)

    async def get_user(self, tenant_id: UUID, user_id: UUID) -> User:
        for known in self._credentials.values():
            if (known.user.tenant_id, known.user.id) == (tenant_id, user_id):
                return known.user
        raise Unauthenticated(Reason.TOKEN_INVALID, "gone")

    async def add_owner(self, organisation_name: str, owner: Credentials) -> bool:
        _storable(organisation_name, owner.user.email, owner.user.display_name)
        if owner.user.email in self._credentials:
            return False
        self._credentials[owner.user.email] = owner
        self.organisations[owner.user.tenant_id] = organisation_name
        self.facts.append(("UserRegistered", (owner.user.tenant_id, owner.user.id)))
        return True

    async def replace_hash(self, user: User, old_hash: str, new_hash: str) -> None:
        known = self._credentials[user.email]
        if known.password_hash == old_hash:
            self._credentials[user.email] = replace(known, password_hash=new_hash)

    async def reset_from_file(self, known: Credentials, new_hash: str, now: datetime) -> bool:
        current = self._credentials[known.user.email]
        if current.file_password_hash != known.file_password_hash:
            return False
        self._credentials[known.user.email] = replace(current, password_hash=new_hash, file_password_hash=new_hash)
        for entry in self._sessions.values():
            if entry.session.user.id == known.user.id:
                await self.revoke(entry.session, now)
        return True

    async def open(self, session: Session, token: StoredToken, now: datetime) -> None:
        for digest, stored in list(self._tokens.items()):
            entry = self._sessions[stored.session_id]
            if entry.session.user.id == session.user.id and entry.expire_time <= now:
                del self._tokens[digest]
        self._sessions[session.id] = _Session(session, token.expire_time)
        self._tokens[token.digest] = _Token(session.id, token.expire_time)
        self.facts.append(("UserLoggedIn", (session.user.tenant_id, session.user.id, session.id)))

    async def find_session(self, digest: bytes) -> Session | None:
        token = self._tokens.get(digest)
        return self._sessions[token.session_id].session if token else None

    async def rotate(self, session: Session, digest: bytes, following: StoredToken, now: datetime) -> Rotation:
        token, entry = self._tokens.get(digest), self._sessions.get(session.id)
        if token is None or entry is None or token.session_id != session.id:
            return Rotation.INVALID
        if token.used:
            self._revoke(entry)
            return Rotation.REUSED
        if entry.revoked or token.expire_time <= now:
            return Rotation.INVALID
        token.used, entry.expire_time = True, following.expire_time
        self._tokens[following.digest] = _Token(session.id, following.expire_time)
        for old, stored in list(self._tokens.items()):
            if stored.session_id == session.id and stored.expire_time <= now:
                del self._tokens[old]
        return Rotation.ROTATED

    async def revoke(self, session: Session, now: datetime) -> None:
        entry = self._sessions[session.id]
        if entry.expire_time > now:
            self._revoke(entry)

    def _revoke(self, entry: _Session) -> None:
        if not entry.revoked:
            entry.revoked = True
            user = entry.session.user
            self.facts.append(("SessionRevoked", (user.tenant_id, user.id, entry.session.id)))


def _storable(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise Invalid(Reason.INVALID_FIELD, "U+0000")
