"""Who uses the command line: tokens kept in a file of mode 600, refreshed when they are about to expire.

On the machine of a local mesh nobody needs to sign in: whoever can read its admin-password is its administrator.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import typer
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from parley_sdk.parley.auth.v1 import (
    AuthServiceStub,
    LoginRequest,
    LogoutRequest,
    RefreshTokenRequest,
    TokenPair,
)
from stack.client.edge import CALL_TIMEOUT_S, Edge, connected, console, errors, reason_of

ADMINISTRATOR = "admin@localhost"
_REFRESH_BEFORE_S = 60
_SESSION_OVER = ("REFRESH_TOKEN_INVALID", "REFRESH_TOKEN_REUSED")


async def login(edge: Edge, email: str, password: str) -> int:
    """Sign in with a password and keep the session."""
    async with connected(edge) as channel:
        with _locked_session(edge) as session:
            await _login(channel, session, email, password)
        console.print(f"Signed in to {edge.url} as {email}.", highlight=False)
    return 0


async def logout(edge: Edge) -> int:
    """End the kept session, at the mesh and here."""
    async with connected(edge) as channel:
        with _locked_session(edge) as session:
            if session:
                request = LogoutRequest(refresh_token=session["refresh_token"])
                await AuthServiceStub(channel).logout(request, timeout=CALL_TIMEOUT_S)
                session.clear()
    console.print(f"Signed out of {edge.url}.", highlight=False)
    return 0


async def print_token(edge: Edge) -> int:
    """Print an access token and nothing else."""
    async with signed_in(edge) as (_, metadata):
        print(metadata["authorization"].removeprefix("Bearer "))
    return 0


@contextlib.asynccontextmanager
async def signed_in(edge: Edge) -> AsyncIterator[tuple[Channel, dict[str, str]]]:
    """A channel to the edge and the call metadata of the signed-in user."""
    async with connected(edge) as channel:
        metadata = {"authorization": f"Bearer {await _access_token(edge, channel)}"}
        yield channel, metadata


async def _access_token(edge: Edge, channel: Channel) -> str:
    # The lock is held during the call: a refresh token works once, and two commands may run at the same time.
    with _locked_session(edge) as session:
        if session and session["access_expires_at_s"] - time.time() < _REFRESH_BEFORE_S:
            await _refresh(channel, session)
        if not session:
            await _login(channel, session, ADMINISTRATOR, _admin_password(edge))
        return str(session["access_token"])


async def _refresh(channel: Channel, session: dict[str, Any]) -> None:
    request = RefreshTokenRequest(refresh_token=session["refresh_token"])
    try:
        response = await AuthServiceStub(channel).refresh_token(request, timeout=CALL_TIMEOUT_S)
    except GRPCError as error:
        if reason_of(error) not in _SESSION_OVER:
            raise
        session.clear()
    else:
        _keep(session, response.tokens)


async def _login(channel: Channel, session: dict[str, Any], email: str, password: str) -> None:
    request = LoginRequest(email=email, password=password)
    response = await AuthServiceStub(channel).login(request, timeout=CALL_TIMEOUT_S)
    _keep(session, response.tokens)


def _keep(session: dict[str, Any], tokens: TokenPair | None) -> None:
    assert tokens
    assert tokens.access_expire_time
    session["access_token"] = tokens.access_token
    session["access_expires_at_s"] = tokens.access_expire_time.timestamp()
    session["refresh_token"] = tokens.refresh_token


def _admin_password(edge: Edge) -> str:
    if edge.admin_password_file:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return edge.admin_password_file.read_text().strip()
    errors.print("Sign in first: `parley login`.", style="red")
    raise typer.Exit(1)


def _session_in(text: str) -> dict[str, Any]:
    """What a session file holds; {} for nothing, or for what a full disk cut off: sign in again."""
    with contextlib.suppress(ValueError):
        session = json.loads(text)
        if isinstance(session, dict) and session.keys() == {"access_token", "access_expires_at_s", "refresh_token"}:
            return session
    return {}


@contextlib.contextmanager
def _locked_session(edge: Edge) -> Iterator[dict[str, Any]]:
    """The kept session, {} for none; what the body leaves in it is written back, also when the body fails."""
    edge.session_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(edge.session_file, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        session = _session_in(before)
        try:
            yield session
        finally:
            if (after := json.dumps(session)) != before:
                file.seek(0)
                file.truncate()
                file.write(after)
