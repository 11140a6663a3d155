"""The first administrator, whom the password file lets in.

Made once, when the service first starts. From then on the file counts only when its content changes: a new password in
the file is the operator's way back in and replaces the stored one; the same file never undoes a password that was
changed elsewhere. To tell the two apart, the hash of the content that was applied last is kept beside the password's.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from services.auth.account import Accounts, Credentials, Passwords, Role, User

EMAIL = "admin@localhost"
ORGANISATION = "local"
_log = logging.getLogger("parley.auth")


class FirstAdministrator:
    """Keeps admin@localhost, owner of the organisation "local", in step with the password file."""

    def __init__(
        self, accounts: Accounts, passwords: Passwords, password_file: Path, clock: Callable[[], datetime]
    ) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._password_file = password_file
        self._clock = clock

    @asynccontextmanager
    async def ensured(self) -> AsyncIterator[None]:
        """A resource of the service: `ensure` before it serves."""
        await self.ensure()
        yield

    async def ensure(self) -> None:
        """Make the account or apply a changed file. Replicas may do it at the same time."""
        password = _read(self._password_file)
        known = await self._accounts.find_credentials(EMAIL)
        if known is None:
            if await self._accounts.add_owner(ORGANISATION, await self._new(password)):
                _log.info("made the first administrator", extra={"facts": {"email": EMAIL}})
        elif not (await self._passwords.check(password, known.file_password_hash)).matches:
            new_hash = await self._passwords.hash(password)
            if await self._accounts.reset_from_file(known, new_hash, self._clock()):
                message = "the password file has changed: reset the first administrator's password, ended the sessions"
                _log.warning(message, extra={"facts": {"email": EMAIL}})

    async def _new(self, password: str) -> Credentials:
        user = User(
            tenant_id=uuid4(),
            id=uuid4(),
            email=EMAIL,
            display_name="Administrator",
            role=Role.OWNER,
            create_time=self._clock(),
        )
        password_hash = await self._passwords.hash(password)
        return Credentials(user=user, password_hash=password_hash, file_password_hash=password_hash)


def _read(password_file: Path) -> str:
    if password := password_file.read_text().strip():
        return password
    raise ValueError(f"{password_file} is empty: write the first administrator's password into it.")
