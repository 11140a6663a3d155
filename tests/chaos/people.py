"""Users who chat: each asks one question after the other, in the manner that chance gives, and keeps all it saw."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import grpc

from parley.auth.v1.auth_service_pb2 import LoginRequest, RegisterRequest
from parley.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from parley.chat.v1.chat_service_pb2 import CancelTurnRequest, StartTurnRequest, TurnOptions
from parley.chat.v1.turn_pb2 import TurnState
from parley.session.v1.session_service_pb2 import CreateConversationRequest
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from tests.chaos.reader import Client, Reader
from tests.chaos.seen import Story
from tests.refusals import reason_of

MANNERS = {
    "plain": 5,
    "copies": 3,
    "late": 2,
    "cancel": 3,
    "slow": 2,
    "leaver": 2,
    "regenerate": 1,
    "edit": 1,
    "branch": 1,
}
"""How often, of 20. Copies: the request several times at once. Late: a second reader joins by number. Leaver: hangs up
and comes back. Regenerate: an earlier question once more, in copies. Edit: another question in the place of one whose
answer still comes. Branch: goes on after an earlier turn."""
TURNS_PER_CONVERSATION = 6
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_CONNECTION_LOST = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
T = TypeVar("T")


def dealt(manners: Mapping[str, int], rng: random.Random) -> Iterator[str]:
    """Manners without end, shuffled in rounds in which each comes as often as it should: none is left to luck."""
    while True:
        yield from rng.sample(list(manners), sum(manners.values()), counts=list(manners.values()))


async def insist(call: Callable[[], Awaitable[T]], within_s: float = 60.0) -> T:
    """Repeat an idempotent call while what refuses it passes; then raise what was last heard."""
    ends_s, pause_s = time.monotonic() + within_s, 0.05
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            lost = error.code() in _CONNECTION_LOST and not reason_of(error)
            passing = error.code() in _PASSING or lost or reason_of(error) in ("SIGN_IN_BUSY", "RATE_LIMITED")
            if not passing or time.monotonic() > ends_s:
                raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.5)


@dataclass
class Account:
    """An owner of an organisation of its own; signs in again when its token is about to end."""

    auth: AuthServiceStub
    email: str
    password: str
    token: str = ""
    valid_until_s: float = 0.0
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def register(self, request_id: UUID) -> None:
        request = RegisterRequest(
            request_id=str(request_id),
            organisation_name="Chaos",
            email=self.email,
            password=self.password,
            display_name="Ada",
        )
        response = await insist(lambda: self.auth.Register(request, timeout=10))
        self._keep(response.tokens)

    async def metadata(self) -> Any:
        async with self.busy:
            if self.valid_until_s - time.time() < 120:
                request = LoginRequest(email=self.email, password=self.password)
                response = await insist(lambda: self.auth.Login(request, timeout=10), within_s=100)
                self._keep(response.tokens)
        return (("authorization", f"Bearer {self.token}"),)

    def _keep(self, tokens: Any) -> None:
        self.token = tokens.access_token
        self.valid_until_s = tokens.access_expire_time.ToSeconds()


@dataclass(frozen=True)
class Size:
    """Of an answer: words and words a second, each from a range."""

    tokens: tuple[int, int] = (20, 300)
    tokens_per_s: tuple[int, int] = (15, 40)
    searched: float = 0.25
    """The share of turns that search the documents first."""
    away_s: tuple[float, float] = (0.1, 5.0)
    """How long those who hang up stay away."""
    pause_s: tuple[float, float] = (0.02, 0.2)
    """What slow readers wait before each event."""


class Person:
    """One user. `chat_on` until told that it is enough; `stories` grow meanwhile."""

    def __init__(
        self,
        name: str,
        client: Client,
        sessions: SessionServiceStub,
        rng: random.Random,
        size: Size,
        manners: Iterator[str],
    ) -> None:
        self.name, self._client, self._sessions, self._rng, self._size = name, client, sessions, rng, size
        self._manners = manners
        self.stories: list[Story] = []
        self.conversations: list[str] = []

    async def chat_on(self, enough: Callable[[], bool]) -> None:
        left = 0
        while not enough():
            if not left:
                self.conversations.append(await self._conversation())
                left = TURNS_PER_CONVERSATION
            left -= 1
            await self.ask(self.conversations[-1])

    async def _conversation(self) -> str:
        request = CreateConversationRequest(request_id=self._uuid())

        async def make() -> Any:
            return await self._sessions.CreateConversation(request, metadata=await self._client.metadata(), timeout=5)

        return str((await insist(make)).conversation.id)

    async def ask(self, conversation_id: str, manner: str = "") -> None:
        """A turn, or several, from the question to the last word of the last reader."""
        manner = manner or next(self._manners)
        again = await self._earlier(conversation_id) if manner == "regenerate" else None
        after = await self._earlier(conversation_id, but_last=1) if manner == "branch" else None
        story, request = self._asked(conversation_id, manner, again=again, after=after)
        self.stories.append(story)
        await getattr(self, f"_{manner}")(story, request)

    async def _earlier(self, conversation_id: str, but_last: int = 0) -> Story | None:
        """One whose turn is known, and which is not among so many asked last; asks plain ones first until there is one.
        None where they were refused."""
        for _ in range(but_last + 2):
            known = [story for story in self.stories if story.conversation_id == conversation_id and story.turn_ids]
            if len(known) > but_last:
                return self._rng.choice(known[: len(known) - but_last])
            await self.ask(conversation_id, "plain")
        return None

    def _asked(
        self, conversation_id: str, manner: str, *, again: Story | None = None, after: Story | None = None
    ) -> tuple[Story, StartTurnRequest]:
        """A question, to be answered `again` or to stand `after` another one; replaced by id alone, see `_edit`."""
        rng = self._rng
        tokens, rate = rng.randint(*self._size.tokens), rng.randint(*self._size.tokens_per_s)
        options = TurnOptions(model="echo", search=rng.random() < self._size.searched)
        options.reader_grace.FromSeconds(60)
        request = StartTurnRequest(request_id=self._uuid(), conversation_id=conversation_id, options=options, text="")
        request.text = f"tokens={tokens} tokens_per_s={rate}\nquestion {request.request_id} in the manner {manner}"
        if again:
            request.text, tokens = again.question, again.tokens
            request.replaces_turn_id = min(again.turn_ids)
        if after:
            request.follows_turn_id = min(after.turn_ids)
        answer = " ".join(str(number) for number in range(1, tokens + 1))
        story = Story(self.name, conversation_id, request.request_id, request.text, answer, tokens, manner)
        story.replaces, story.follows = request.replaces_turn_id, request.follows_turn_id
        return story, request

    def _uuid(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    async def _plain(self, story: Story, request: StartTurnRequest) -> None:
        await Reader(self._client, story, request).read()

    async def _copies(self, story: Story, request: StartTurnRequest) -> None:
        readers = [Reader(self._client, story, request) for _ in range(self._rng.randint(2, 4))]
        await asyncio.gather(*(reader.read() for reader in readers))

    _regenerate = _copies
    _branch = _plain

    async def _edit(self, story: Story, request: StartTurnRequest) -> None:
        reader = Reader(self._client, story, request)
        reading = asyncio.create_task(reader.read())
        if turn_id := await self._after_words(reader, self._rng.randint(0, story.tokens // 2)):
            edited, request = self._asked(story.conversation_id, "edited")
            edited.replaces = request.replaces_turn_id = turn_id
            self.stories.append(edited)
            await Reader(self._client, edited, request).read()
        await reading

    async def _late(self, story: Story, request: StartTurnRequest) -> None:
        first = Reader(self._client, story, request)
        reading = asyncio.create_task(first.read())
        if turn_id := await self._after_words(first, self._rng.randint(1, story.tokens // 2)):
            await Reader(self._client, story, request, turn_id).read()
        await reading

    async def _slow(self, story: Story, request: StartTurnRequest) -> None:
        quick, slow = Reader(self._client, story, request), Reader(self._client, story, request)
        slow.pause_s = self._rng.uniform(*self._size.pause_s)
        await asyncio.gather(quick.read(), slow.read())

    async def _leaver(self, story: Story, request: StartTurnRequest) -> None:
        reader = Reader(self._client, story, request)
        reader.leave_after = self._rng.randint(1, story.tokens)
        reader.away_s = self._rng.uniform(*self._size.away_s)
        await reader.read()

    async def _cancel(self, story: Story, request: StartTurnRequest) -> None:
        reader = Reader(self._client, story, request)
        reading = asyncio.create_task(reader.read())
        if turn_id := await self._after_words(reader, self._rng.randint(0, story.tokens // 2)):
            story.cancel_wish_s = asyncio.get_running_loop().time()
            self._client.passed("cancel")
            patience_s = self._client.patience.in_all_s

            async def cancel() -> Any:
                wish = CancelTurnRequest(turn_id=turn_id)
                return await self._client.chat.CancelTurn(
                    wish, metadata=await self._client.metadata(), timeout=min(10, patience_s)
                )

            try:
                story.cancel_answered = (await insist(cancel, patience_s)).turn
            except grpc.aio.AioRpcError as error:
                story.cancel_problem = f"{reason_of(error) or error.code().name}: {error.details()}"
            else:
                if story.cancel_answered.state in (TurnState.TURN_STATE_RUNNING, TurnState.TURN_STATE_UNSPECIFIED):
                    story.cancel_problem = "CancelTurn returned a turn that had not ended"
        await reading

    async def _after_words(self, reader: Reader, words: int) -> str:
        """The turn's id once so much was read; "" when the stream is over before."""
        stream = reader.stream
        while len(stream.steps) <= words:
            if stream.end or stream.settled or stream.refusal or stream.given_up:
                return ""
            reader.news.clear()
            await reader.news.wait()
        return next(iter(stream.turn_ids))
