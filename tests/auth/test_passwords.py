"""Argon2id itself, with cheap parameters where only the queue matters."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import argon2
import pytest

from services.auth.passwords import RECOMMENDED, Argon2Passwords
from services.shared.errors import Exhausted, Reason

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1)


@pytest.fixture
async def passwords() -> AsyncIterator[Argon2Passwords]:
    async with Argon2Passwords(workers=1, queue=1, hasher=CHEAP) as opened:
        yield opened


async def seconds(work: Awaitable[object]) -> float:
    began_s = time.perf_counter()
    await work
    return time.perf_counter() - began_s


def test_the_parameters_are_the_ones_that_were_decided() -> None:
    parameters = argon2.extract_parameters(RECOMMENDED.hash(b"secret"))
    assert (parameters.type, parameters.memory_cost, parameters.time_cost) == (argon2.Type.ID, 64 * 1024, 3)


async def test_a_hash_matches_its_password_alone(passwords: Argon2Passwords) -> None:
    hashed = await passwords.hash("correct horse")
    assert (await passwords.check("correct horse", hashed)).matches
    assert not (await passwords.check("correct horsf", hashed)).matches
    assert hashed != await passwords.hash("correct horse")


async def test_a_password_is_the_same_however_its_letters_are_composed(passwords: Argon2Passwords) -> None:
    assert (await passwords.check("cafe\u0301 \0", await passwords.hash("caf\u00e9 \0"))).matches


async def test_outdated_parameters_give_a_replacement_that_matches(passwords: Argon2Passwords) -> None:
    old = argon2.PasswordHasher(time_cost=2, memory_cost=1024, parallelism=1).hash("secret")
    check = await passwords.check("secret", old)
    assert check.matches
    assert check.replacement
    assert await passwords.check("secret", check.replacement) == type(check)(matches=True)


async def test_no_hash_matches_nothing_and_takes_as_long() -> None:
    async with Argon2Passwords(workers=1, queue=1) as passwords:
        hashed = await passwords.hash("secret")
        assert not (await passwords.check("", None)).matches
        known_s = min([await seconds(passwords.check("wrong", hashed)) for _ in range(3)])
        unknown_s = min([await seconds(passwords.check("wrong", None)) for _ in range(3)])
    assert known_s / 3 < unknown_s < known_s * 3


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(passwords: Argon2Passwords) -> None:
    answers = await asyncio.gather(*(passwords.hash("secret") for _ in range(5)), return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, Exhausted)]
    assert len(refusals) == 3
    assert {refusal.reason for refusal in refusals} == {Reason.SIGN_IN_BUSY}
    assert all(refusal.retry_after_s for refusal in refusals)
    assert await passwords.hash("secret")


async def test_a_caller_that_goes_away_gives_its_place_back(passwords: Argon2Passwords) -> None:
    running, waiting = (asyncio.create_task(passwords.hash("secret")) for _ in range(2))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await passwords.hash("secret")
    assert await running


async def test_the_event_loop_goes_on_while_a_password_is_hashed() -> None:
    async with Argon2Passwords(workers=1, queue=1) as passwords:
        hashing = asyncio.create_task(passwords.hash("secret"))
        turns = 0
        while not hashing.done():
            turns += 1
            await asyncio.sleep(0.001)
    assert turns > 5
