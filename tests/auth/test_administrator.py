"""The first administrator and the password file."""

from pathlib import Path

import pytest

from services.auth.account import Role
from services.auth.administrator import EMAIL, FirstAdministrator
from services.shared.errors import Unauthenticated
from tests.auth.conftest import Domain


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "admin-password"
    path.write_text("first password\n")
    return path


@pytest.fixture
def administrator(domain: Domain, password_file: Path) -> FirstAdministrator:
    return FirstAdministrator(domain.store, domain.passwords, password_file, domain.clock)


async def test_the_administrator_owns_the_local_organisation(domain: Domain, administrator: FirstAdministrator) -> None:
    async with administrator.ensured():
        user, _ = await domain.sign_in.login("Admin@Localhost", "first password")
    assert user.role is Role.OWNER
    assert domain.store.organisations == {user.tenant_id: "local"}


async def test_later_starts_change_nothing(domain: Domain, administrator: FirstAdministrator) -> None:
    await administrator.ensure()
    known = await domain.store.find_credentials(EMAIL)
    domain.passwords.parameters = "v2"
    await administrator.ensure()
    assert await domain.store.find_credentials(EMAIL) == known
    assert domain.fact_names() == ["UserRegistered"]


async def test_a_changed_file_resets_the_password_and_ends_the_sessions(
    domain: Domain, administrator: FirstAdministrator, password_file: Path
) -> None:
    await administrator.ensure()
    _, tokens = await domain.sign_in.login(EMAIL, "first password")
    _write(password_file, "second password")
    await administrator.ensure()
    for outdated in (
        domain.sign_in.login(EMAIL, "first password"),
        domain.sessions.refresh(tokens.refresh_token),
    ):
        with pytest.raises(Unauthenticated):
            await outdated
    assert await domain.sign_in.login(EMAIL, "second password")
    assert domain.fact_names() == ["UserRegistered", "UserLoggedIn", "SessionRevoked", "UserLoggedIn"]


async def test_the_same_file_does_not_undo_a_password_changed_elsewhere(
    domain: Domain, administrator: FirstAdministrator
) -> None:
    await administrator.ensure()
    known = await domain.store.find_credentials(EMAIL)
    assert known
    await domain.store.replace_hash(known.user, known.password_hash, "v1:chosen by the user")
    await administrator.ensure()
    assert await domain.sign_in.login(EMAIL, "chosen by the user")


async def test_an_empty_file_stops_the_start(administrator: FirstAdministrator, password_file: Path) -> None:
    _write(password_file, "\n")
    with pytest.raises(ValueError, match="is empty"):
        await administrator.ensure()


def _write(path: Path, content: str) -> None:
    path.write_text(content)
