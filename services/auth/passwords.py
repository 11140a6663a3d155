"""Argon2id off the event loop, a few at a time.

A check takes 64 MiB and a core for about a tenth of a second, so a crowd of sign-ins must wait in a short queue and be
refused beyond it instead of taking the machine. Sizing: `workers` at most the cores; `queue / workers` checks must fit
well inside a call's deadline. argon2-cffi lets go of the interpreter lock while it works, so threads are enough.
"""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from types import TracebackType
from typing import Self, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError

from services.auth.account import PasswordCheck, normal_password
from services.shared.errors import Exhausted, Reason

T = TypeVar("T")
_RETRY_AFTER_S = 2.0

# The second recommended option of RFC 9106, on one lane: a queue of checks uses the cores better than lanes do.
RECOMMENDED = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1, type=Type.ID)


class Argon2Passwords:
    """Implements account.Passwords, while entered."""

    def __init__(self, *, workers: int, queue: int, hasher: PasswordHasher = RECOMMENDED) -> None:
        self._hasher = hasher
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._places = BoundedSemaphore(workers + queue)
        self._nobody = ""

    async def __aenter__(self) -> Self:
        self._nobody = await self.hash(secrets.token_urlsafe())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """A PHC string. Raises Exhausted(SIGN_IN_BUSY)."""
        return await self._run(lambda: self._hasher.hash(normal_password(password)))

    async def check(self, password: str, password_hash: str | None) -> PasswordCheck:
        """Whether the password is the hashed one; None matches nothing, as slowly. Raises Exhausted(SIGN_IN_BUSY)."""
        check = await self._run(lambda: self._check(normal_password(password), password_hash or self._nobody))
        return check if password_hash else PasswordCheck(matches=False)

    def _check(self, password: bytes, password_hash: str) -> PasswordCheck:
        try:
            self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return PasswordCheck(matches=False)
        outdated = self._hasher.check_needs_rehash(password_hash)
        return PasswordCheck(matches=True, replacement=self._hasher.hash(password) if outdated else None)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            message = "Too many people sign in just now; try again in a moment."
            raise Exhausted(Reason.SIGN_IN_BUSY, message, retry_after_s=_RETRY_AFTER_S)
        future = self._threads.submit(work)
        # A caller that goes away gives its place back at once if it still waited, else when the check ends.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)
