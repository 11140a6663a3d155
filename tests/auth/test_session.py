"""Sessions on fakes: rotation, reuse, expiry, logout."""

from datetime import timedelta

import pytest

from services.auth.session import TokenPair
from services.shared.errors import Reason, Unauthenticated
from tests.auth.conftest import Domain, an_owner


async def signed_in(domain: Domain) -> TokenPair:
    owner = an_owner()
    await domain.store.add_owner("Acme", owner)
    return await domain.sessions.open(owner.user)


async def refused(domain: Domain, token: str) -> Reason:
    with pytest.raises(Unauthenticated) as refusal:
        await domain.sessions.refresh(token)
    return refusal.value.reason


async def test_a_pair_says_when_its_tokens_stop_working(domain: Domain) -> None:
    pair = await signed_in(domain)
    assert pair.access_expire_time == (domain.clock.now + timedelta(minutes=10)).replace(microsecond=0)
    assert pair.refresh_expire_time == domain.clock.now + timedelta(days=14)
    assert pair.access_token.endswith(pair.access_expire_time.isoformat())


async def test_a_refresh_stays_in_the_session_and_prolongs_it(domain: Domain) -> None:
    first = await signed_in(domain)
    domain.clock.advance(days=13)
    second = await domain.sessions.refresh(first.refresh_token)
    domain.clock.advance(days=13)
    third = await domain.sessions.refresh(second.refresh_token)
    assert len({pair.refresh_token for pair in (first, second, third)}) == 3
    assert len({tuple(pair.access_token.split()[:4]) for pair in (first, second, third)}) == 1


async def test_a_refresh_token_is_256_bits_and_is_stored_only_as_a_digest(domain: Domain) -> None:
    pair = await signed_in(domain)
    assert len(pair.refresh_token) == 43  # base64url of 32 bytes
    assert pair.refresh_token not in str(vars(domain.store))
    assert pair.refresh_token not in repr(pair)


async def test_a_token_that_comes_twice_ends_the_session_for_both_holders(domain: Domain) -> None:
    stolen = await signed_in(domain)
    thief = await domain.sessions.refresh(stolen.refresh_token)
    assert await refused(domain, stolen.refresh_token) is Reason.REFRESH_TOKEN_REUSED
    assert await refused(domain, thief.refresh_token) is Reason.REFRESH_TOKEN_INVALID
    assert domain.fact_names() == ["UserRegistered", "UserLoggedIn", "SessionRevoked"]


async def test_reuse_in_one_session_leaves_the_users_other_sessions(domain: Domain) -> None:
    owner = an_owner()
    await domain.store.add_owner("Acme", owner)
    one, other = await domain.sessions.open(owner.user), await domain.sessions.open(owner.user)
    await domain.sessions.refresh(one.refresh_token)
    assert await refused(domain, one.refresh_token) is Reason.REFRESH_TOKEN_REUSED
    assert await domain.sessions.refresh(other.refresh_token)


@pytest.mark.parametrize("token", ["unknown", "ключ", "x" * 200])
async def test_an_unknown_token_is_invalid(domain: Domain, token: str) -> None:
    assert await refused(domain, token) is Reason.REFRESH_TOKEN_INVALID


async def test_a_token_left_for_two_weeks_is_invalid(domain: Domain) -> None:
    pair = await signed_in(domain)
    domain.clock.advance(days=14)
    assert await refused(domain, pair.refresh_token) is Reason.REFRESH_TOKEN_INVALID


async def test_logout_ends_the_session_once(domain: Domain) -> None:
    pair = await signed_in(domain)
    await domain.sessions.end(pair.refresh_token)
    await domain.sessions.end(pair.refresh_token)
    assert await refused(domain, pair.refresh_token) is Reason.REFRESH_TOKEN_INVALID
    assert domain.fact_names().count("SessionRevoked") == 1


async def test_logout_with_a_used_token_ends_the_session_too(domain: Domain) -> None:
    first = await signed_in(domain)
    second = await domain.sessions.refresh(first.refresh_token)
    await domain.sessions.end(first.refresh_token)
    assert await refused(domain, second.refresh_token) is Reason.REFRESH_TOKEN_INVALID


async def test_logout_with_an_unknown_token_ends_nothing(domain: Domain) -> None:
    await domain.sessions.end("unknown")
    assert domain.store.facts == []
