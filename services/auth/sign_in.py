"""Signing in with a password, and signing up, which ends in the same.

An unknown address and a wrong password get the same answer after the same work, so that addresses can't be probed by
Login. Register does tell that an address is taken.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

from services.auth.account import Accounts, Credentials, Passwords, Registration, Role, User, normal_email
from services.auth.session import Sessions, TokenPair
from services.shared.errors import AlreadyExists, Reason, Unauthenticated


class SignIn:
    """Turns a password into a session."""

    def __init__(
        self, accounts: Accounts, passwords: Passwords, sessions: Sessions, clock: Callable[[], datetime]
    ) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._sessions = sessions
        self._clock = clock

    async def login(self, email: str, password: str) -> tuple[User, TokenPair]:
        """The user, signed in. Raises Unauthenticated(BAD_CREDENTIALS) or Exhausted(SIGN_IN_BUSY)."""
        known = await self._accounts.find_credentials(normal_email(email))
        if (user := await self._prove(known, password)) is None:
            message = "The e-mail address is unknown or the password is wrong."
            raise Unauthenticated(Reason.BAD_CREDENTIALS, message)
        return user, await self._sessions.open(user)

    async def register(self, wanted: Registration) -> tuple[User, TokenPair]:
        """The owner of a new organisation, signed in; a repeat signs the same owner in again.

        Raises AlreadyExists(EMAIL_TAKEN) or Exhausted(SIGN_IN_BUSY).
        """
        user = await self._add(wanted) or await self._repeat(wanted)
        return user, await self._sessions.open(user)

    async def _add(self, wanted: Registration) -> User | None:
        email = normal_email(wanted.email)
        if await self._accounts.find_credentials(email):  # spares the hash; add_owner decides
            return None
        owner = Credentials(
            user=User(
                tenant_id=uuid4(),
                id=uuid4(),
                email=email,
                display_name=wanted.display_name,
                role=Role.OWNER,
                create_time=self._clock(),
            ),
            password_hash=await self._passwords.hash(wanted.password),
            registration_digest=wanted.digest,
        )
        return owner.user if await self._accounts.add_owner(wanted.organisation_name, owner) else None

    async def _repeat(self, wanted: Registration) -> User:
        known = await self._accounts.find_credentials(normal_email(wanted.email))
        if known and known.registration_digest == wanted.digest and (user := await self._prove(known, wanted.password)):
            return user
        raise AlreadyExists(Reason.EMAIL_TAKEN, "This e-mail address has an account: sign in.")

    async def _prove(self, known: Credentials | None, password: str) -> User | None:
        check = await self._passwords.check(password, known.password_hash if known else None)
        if known is None or not check.matches:
            return None
        if check.replacement:
            await self._accounts.replace_hash(known.user, known.password_hash, check.replacement)
        return known.user
