"""One suite for accounts and sessions: on the fake, and on real PostgreSQL."""

import asyncio
import secrets
from collections import Counter
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from services.auth.account import Credentials
from services.auth.session import Rotation, Session, StoredToken
from services.shared.errors import Invalid, Reason, Unauthenticated
from tests.auth.conftest import Stores, an_owner
from tests.auth.fakes import FakeClock

NOON = FakeClock()()
LATER = NOON + timedelta(days=14)


def a_token(expire_time: datetime = LATER) -> StoredToken:
    return StoredToken(secrets.token_bytes(32), expire_time)


async def an_account(stores: Stores, **changes: object) -> Credentials:
    owner = an_owner(**changes)
    assert await stores.accounts.add_owner("Acme", owner)
    return owner


async def an_open_session(stores: Stores, expire_time: datetime = LATER) -> tuple[Session, StoredToken]:
    session, token = Session(uuid4(), (await an_account(stores)).user), a_token(expire_time)
    await stores.sessions.open(session, token, NOON)
    return session, token


async def names(stores: Stores, session: Session) -> Counter[str]:
    return Counter(name for name, _ in await stores.facts(session.user.tenant_id))


async def test_an_account_comes_back_as_it_was_added(stores: Stores) -> None:
    owner = await an_account(stores, file_password_hash="v1:file", registration_digest=b"\0digest")
    assert await stores.accounts.find_credentials(owner.user.email) == owner
    assert await stores.accounts.get_user(owner.user.tenant_id, owner.user.id) == owner.user
    assert await stores.facts(owner.user.tenant_id) == [("UserRegistered", (owner.user.tenant_id, owner.user.id))]


async def test_an_unknown_address_has_no_credentials(stores: Stores) -> None:
    assert await stores.accounts.find_credentials("nobody@example.org") is None


async def test_a_user_is_found_only_in_their_own_organisation(stores: Stores) -> None:
    owner = await an_account(stores)
    for tenant_id, user_id in ((uuid4(), owner.user.id), (owner.user.tenant_id, uuid4())):
        with pytest.raises(Unauthenticated) as refused:
            await stores.accounts.get_user(tenant_id, user_id)
        assert refused.value.reason is Reason.TOKEN_INVALID


async def test_an_address_gets_one_account_however_many_ask_at_once(stores: Stores) -> None:
    email = an_owner().user.email
    rivals = [an_owner(email) for _ in range(8)]
    added = await asyncio.gather(*(stores.accounts.add_owner("Acme", rival) for rival in rivals))
    assert added.count(True) == 1
    winner = rivals[added.index(True)]
    assert await stores.accounts.find_credentials(email) == winner
    for rival in rivals:
        assert bool(await stores.facts(rival.user.tenant_id)) == (rival is winner)


async def test_a_hash_is_replaced_only_while_it_is_the_one_that_was_checked(stores: Stores) -> None:
    owner = await an_account(stores)
    await stores.accounts.replace_hash(owner.user, "v1:secret", "v2:secret")
    await stores.accounts.replace_hash(owner.user, "v1:secret", "v3:secret")
    found = await stores.accounts.find_credentials(owner.user.email)
    assert found
    assert found.password_hash == "v2:secret"


async def test_a_reset_from_the_file_happens_once_and_ends_the_sessions(stores: Stores) -> None:
    session, token = await an_open_session(stores)
    known = await stores.accounts.find_credentials(session.user.email)
    assert known
    resets = await asyncio.gather(*(stores.accounts.reset_from_file(known, f"v1:{n}", NOON) for n in range(4)))
    assert resets.count(True) == 1
    found = await stores.accounts.find_credentials(session.user.email)
    assert found
    assert found.password_hash == found.file_password_hash == f"v1:{resets.index(True)}"
    assert await stores.sessions.rotate(session, token.digest, a_token(), NOON) is Rotation.INVALID
    assert (await names(stores, session))["SessionRevoked"] == 1


async def test_opening_a_session_stores_it_and_its_event(stores: Stores) -> None:
    session, token = await an_open_session(stores)
    assert await stores.sessions.find_session(token.digest) == session
    ids = (session.user.tenant_id, session.user.id, session.id)
    assert (await stores.facts(session.user.tenant_id))[-1] == ("UserLoggedIn", ids)


async def test_an_unknown_digest_has_no_session(stores: Stores) -> None:
    assert await stores.sessions.find_session(secrets.token_bytes(32)) is None


async def test_tokens_rotate_one_after_the_other(stores: Stores) -> None:
    session, token = await an_open_session(stores)
    for _ in range(3):
        following = a_token()
        assert await stores.sessions.rotate(session, token.digest, following, NOON) is Rotation.ROTATED
        token = following
    assert await names(stores, session) == {"UserRegistered": 1, "UserLoggedIn": 1}


async def test_a_token_that_comes_twice_revokes_the_session_and_its_newest_token(stores: Stores) -> None:
    session, first = await an_open_session(stores)
    second = a_token()
    await stores.sessions.rotate(session, first.digest, second, NOON)
    for _ in range(2):
        assert await stores.sessions.rotate(session, first.digest, a_token(), NOON) is Rotation.REUSED
    assert await stores.sessions.rotate(session, second.digest, a_token(), NOON) is Rotation.INVALID
    ids = (session.user.tenant_id, session.user.id, session.id)
    assert (await stores.facts(session.user.tenant_id))[2:] == [("SessionRevoked", ids)]


async def test_of_twenty_simultaneous_refreshes_one_wins_and_one_revokes(stores: Stores) -> None:
    for _ in range(4):  # in the first round the pool may still be connecting, which puts the calls in a row
        session, token = await an_open_session(stores)
        rotations = (stores.sessions.rotate(session, token.digest, a_token(), NOON) for _ in range(20))
        assert Counter(await asyncio.gather(*rotations)) == {Rotation.ROTATED: 1, Rotation.REUSED: 19}
        assert (await names(stores, session))["SessionRevoked"] == 1


async def test_refreshes_of_different_sessions_do_not_touch_each_other(stores: Stores) -> None:
    opened = [await an_open_session(stores) for _ in range(6)]
    rotations = (stores.sessions.rotate(session, token.digest, a_token(), NOON) for session, token in opened)
    assert set(await asyncio.gather(*rotations)) == {Rotation.ROTATED}


async def test_a_refresh_and_a_logout_at_once_leave_no_live_session(stores: Stores) -> None:
    for _ in range(5):
        session, token = await an_open_session(stores)
        following = a_token()
        rotate = stores.sessions.rotate(session, token.digest, following, NOON)
        await asyncio.gather(rotate, stores.sessions.revoke(session, NOON))
        assert await stores.sessions.rotate(session, following.digest, a_token(), NOON) is Rotation.INVALID
        assert (await names(stores, session))["SessionRevoked"] == 1


async def test_a_token_works_until_the_moment_it_expires(stores: Stores) -> None:
    session, token = await an_open_session(stores)
    moment = timedelta(microseconds=1)
    assert await stores.sessions.rotate(session, token.digest, a_token(), LATER) is Rotation.INVALID
    assert await stores.sessions.rotate(session, token.digest, a_token(), LATER - moment) is Rotation.ROTATED


async def test_another_sessions_token_rotates_nothing(stores: Stores) -> None:
    session, _ = await an_open_session(stores)
    _, foreign = await an_open_session(stores)
    assert await stores.sessions.rotate(session, foreign.digest, a_token(), NOON) is Rotation.INVALID
    assert await stores.sessions.find_session(foreign.digest) is not None


async def test_a_revoked_session_is_revoked_once_and_refreshes_no_more(stores: Stores) -> None:
    session, token = await an_open_session(stores)
    await asyncio.gather(*(stores.sessions.revoke(session, NOON) for _ in range(4)))
    assert await stores.sessions.rotate(session, token.digest, a_token(), NOON) is Rotation.INVALID
    assert (await names(stores, session))["SessionRevoked"] == 1


async def test_a_session_that_ran_out_is_not_revoked(stores: Stores) -> None:
    session, _ = await an_open_session(stores)
    await stores.sessions.revoke(session, LATER)
    assert (await names(stores, session))["SessionRevoked"] == 0


async def test_signing_in_again_forgets_the_users_sessions_that_ran_out(stores: Stores) -> None:
    session, old = await an_open_session(stores, NOON + timedelta(hours=1))
    _, others = await an_open_session(stores, NOON + timedelta(hours=1))
    live = a_token()
    await stores.sessions.open(Session(uuid4(), session.user), live, NOON)
    assert await stores.sessions.find_session(old.digest)
    await stores.sessions.open(Session(uuid4(), session.user), a_token(), NOON + timedelta(hours=1))
    assert await stores.sessions.find_session(old.digest) is None
    assert await stores.sessions.find_session(live.digest)
    assert await stores.sessions.find_session(others.digest)


async def test_rotation_forgets_the_sessions_tokens_that_ran_out(stores: Stores) -> None:
    session, first = await an_open_session(stores, NOON + timedelta(hours=1))
    second, third = a_token(), a_token()
    await stores.sessions.rotate(session, first.digest, second, NOON)
    await stores.sessions.rotate(session, second.digest, third, NOON + timedelta(hours=1))
    assert await stores.sessions.find_session(first.digest) is None
    assert await stores.sessions.find_session(second.digest)


async def test_text_with_a_zero_character_is_refused(stores: Stores) -> None:
    with pytest.raises(Invalid) as refused:
        await stores.accounts.find_credentials("a\0@example.org")
    assert refused.value.reason is Reason.INVALID_FIELD
    with pytest.raises(Invalid):
        await stores.accounts.add_owner("Ac\0me", an_owner())
