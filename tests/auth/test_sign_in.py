"""Signing in and signing up on fakes."""

from uuid import uuid4

import pytest

from services.auth.account import Registration, Role
from services.shared.errors import AlreadyExists, Reason, Unauthenticated
from tests.auth.conftest import PASSWORD, Domain, a_registration


async def taken(domain: Domain, wanted: Registration) -> None:
    with pytest.raises(AlreadyExists) as refusal:
        await domain.sign_in.register(wanted)
    assert refusal.value.reason is Reason.EMAIL_TAKEN


async def bad(domain: Domain, email: str, password: str) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        await domain.sign_in.login(email, password)
    assert refusal.value.reason is Reason.BAD_CREDENTIALS
    return refusal.value.message


async def test_registering_makes_an_organisation_and_signs_its_owner_in(domain: Domain) -> None:
    user, tokens = await domain.sign_in.register(a_registration(email="Ada@Example.ORG"))
    assert (user.email, user.role, user.display_name) == ("ada@example.org", Role.OWNER, "Ada")
    assert domain.store.organisations == {user.tenant_id: "Acme"}
    assert domain.fact_names() == ["UserRegistered", "UserLoggedIn"]
    assert await domain.sessions.refresh(tokens.refresh_token)


async def test_a_repeated_registration_signs_the_same_owner_in_again(domain: Domain) -> None:
    wanted = a_registration()
    first, second = await domain.sign_in.register(wanted), await domain.sign_in.register(wanted)
    assert first[0] == second[0]
    assert first[1].refresh_token != second[1].refresh_token
    assert domain.fact_names() == ["UserRegistered", "UserLoggedIn", "UserLoggedIn"]


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": uuid4()},
        {"organisation_name": "Other"},
        {"display_name": "Eve"},
        {"password": "another password"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_taken_address_is_refused_unless_everything_is_the_same(
    domain: Domain, change: dict[str, object]
) -> None:
    wanted = {"request_id": uuid4(), "email": "ada@example.org"}
    await domain.sign_in.register(a_registration(**wanted))
    await taken(domain, a_registration(**{**wanted, **change}))
    assert domain.fact_names() == ["UserRegistered", "UserLoggedIn"]


async def test_two_organisations_share_nothing(domain: Domain) -> None:
    one, _ = await domain.sign_in.register(a_registration())
    other, _ = await domain.sign_in.register(a_registration())
    assert one.tenant_id != other.tenant_id


@pytest.mark.parametrize(
    ("stored", "typed"),
    [
        ("ada@example.org", "ADA@EXAMPLE.org"),
        ("grüße@example.org", "GRU\u0308ßE@example.org"),
        ("משתמש@example.org", "משתמש@EXAMPLE.org"),
    ],
)
async def test_an_address_is_known_in_any_case_and_composition(domain: Domain, stored: str, typed: str) -> None:
    registered, _ = await domain.sign_in.register(a_registration(email=stored))
    user, _ = await domain.sign_in.login(typed, PASSWORD)
    assert user == registered


async def test_each_login_opens_a_session_of_its_own(domain: Domain) -> None:
    wanted = a_registration()
    await domain.sign_in.register(wanted)
    await domain.sign_in.login(wanted.email, PASSWORD)
    assert len({ids[2] for name, ids in domain.store.facts if name == "UserLoggedIn"}) == 2


async def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(domain: Domain) -> None:
    wanted = a_registration()
    await domain.sign_in.register(wanted)
    assert await bad(domain, wanted.email, "wrong") == await bad(domain, "nobody@example.org", PASSWORD)
    assert domain.fact_names() == ["UserRegistered", "UserLoggedIn"]


async def test_a_login_renews_a_hash_whose_parameters_are_outdated(domain: Domain) -> None:
    wanted = a_registration()
    await domain.sign_in.register(wanted)
    domain.passwords.parameters = "v2"
    await bad(domain, wanted.email, "wrong")
    known = await domain.store.find_credentials(wanted.email)
    assert known
    assert known.password_hash == f"v1:{PASSWORD}"
    await domain.sign_in.login(wanted.email, PASSWORD)
    known = await domain.store.find_credentials(wanted.email)
    assert known
    assert known.password_hash == f"v2:{PASSWORD}"


async def test_passwords_are_not_shown_by_repr(domain: Domain) -> None:
    wanted = a_registration()
    user, _ = await domain.sign_in.register(wanted)
    known = await domain.store.find_credentials(user.email)
    assert PASSWORD not in repr((wanted, known))
