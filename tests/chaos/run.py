"""One run: people who chat while a saboteur works, then the record, then the verdict."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc

from parley.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from tests.chaos.people import MANNERS, Account, Person, Size, dealt
from tests.chaos.reader import Client, Patience
from tests.chaos.record import read_record
from tests.chaos.saboteur import Moments, Saboteur, Struck
from tests.chaos.seen import Record, Story

CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    # A client that looks every few hundred milliseconds whether the edge is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 300),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_FINISH_S = 120.0
_TELL_S = 30.0
SETTLE_S = 60.0
"""How long turns may still run once everything is calm."""


@dataclass(frozen=True)
class Load:
    turns: int
    """At least so many; people go on while the saboteur works."""
    users: int
    seed: int
    size: Size = field(default_factory=Size)
    patience: Patience = field(default_factory=Patience)
    flaws: frozenset[str] = frozenset()
    """Deliberate breaks of the clients, see reader.py."""
    at_most_s: float = 3600.0
    manners: Mapping[str, int] = field(default_factory=lambda: MANNERS)


@dataclass
class Outcome:
    stories: list[Story]
    record: Record
    journal: list[Struck]
    took_s: float
    unfinished: list[str] = field(default_factory=list)
    """Users whose turn did not end in time, or whose part of the harness failed: nothing may hide behind them."""
    busy: float = 0.0
    busy_elsewhere: float = 0.0
    """Shares of the processors; elsewhere: by programs that are neither the mesh nor the harness."""


@dataclass
class Signed:
    """A user at the edge."""

    name: str
    chat: ChatServiceStub
    sessions: SessionServiceStub
    metadata: Callable[[], Awaitable[Any]]


@asynccontextmanager
async def signed_in(edge: str, count: int) -> AsyncIterator[list[Signed]]:
    """So many new users, each with a connection of its own."""
    async with AsyncExitStack() as kept:
        people: list[Signed] = []
        at_once = asyncio.Semaphore(4)

        async def one(number: int) -> None:
            channel = await kept.enter_async_context(grpc.aio.insecure_channel(edge, options=CHANNEL_OPTIONS))
            account = Account(AuthServiceStub(channel), f"{uuid4().hex}@example.com", uuid4().hex)
            async with at_once:
                await account.register(uuid4())
            name = f"user {number}"
            people.append(Signed(name, ChatServiceStub(channel), SessionServiceStub(channel), account.metadata))

        await asyncio.gather(*(one(number) for number in range(1, count + 1)))
        yield sorted(people, key=lambda person: int(person.name.split()[1]))


async def run(
    users: Sequence[Signed], load: Load, moments: Moments, saboteur: Saboteur | None, settle_s: float = SETTLE_S
) -> Outcome:
    """Chat, break, ask the record. Bounded by `load.at_most_s` and a few minutes to finish and settle."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    people = []
    manners = dealt(load.manners, random.Random(load.seed))
    for number, user in enumerate(users):
        client = Client(user.chat, user.metadata, load.patience, load.flaws, moments.passed)
        rng = random.Random(load.seed * 1_000 + number)
        people.append(Person(user.name, client, user.sessions, rng, load.size, manners))
    work = asyncio.create_task(saboteur.work()) if saboteur else None

    def enough() -> bool:
        asked = sum(len(person.stories) for person in people)
        return (asked >= load.turns and (work is None or work.done())) or clock() - began_s > load.at_most_s

    chatting = {asyncio.create_task(person.chat_on(enough)): person.name for person in people}
    unfinished: list[str] = []
    told_s = began_s
    try:
        pending = set(chatting)
        while pending and not (enough() and (work is None or work.done())):
            _, pending = await asyncio.wait(pending, timeout=0.5)
            if saboteur and clock() - told_s > _TELL_S:
                told_s = clock()
                asked = sum(len(person.stories) for person in people)
                print(f"  {told_s - began_s:6.1f} s  {asked} turns asked, {saboteur.progress}", flush=True)
            if clock() - began_s > load.at_most_s and work:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        if pending:
            _, pending = await asyncio.wait(pending, timeout=_FINISH_S)
        for task, name in chatting.items():
            if task in pending:
                unfinished.append(f"{name} did not finish within {_FINISH_S:.0f} s")
            elif error := task.exception():
                unfinished.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    finally:
        for task in (*chatting, *([work] if work else [])):
            task.cancel()
        await asyncio.gather(*chatting, *([work] if work else []), return_exceptions=True)
    if saboteur and not saboteur.done:
        unfinished.append(f"the saboteur was stopped in the middle: {saboteur.progress}")
    if work and not work.cancelled() and (failure := work.exception()):
        unfinished.append(f"the saboteur failed: {failure!r}")
    took_s = clock() - began_s
    record = Record()
    stories = [story for person in people for story in person.stories]
    reading = (
        read_record(person.stories, user.chat, user.sessions, user.metadata, settle_s, record)
        for person, user in zip(people, users, strict=True)
    )
    for result in await asyncio.gather(*reading, return_exceptions=True):
        if isinstance(result, BaseException):
            unfinished.append(f"the record could not be read: {type(result).__name__}: {str(result)[:300]}")
    return Outcome(stories, record, saboteur.journal if saboteur else [], took_s, unfinished)
