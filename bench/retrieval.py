"""How well, and how fast, does Search find what answers a question?

nDCG@10 of the development parts of public sets, each in an organisation of its own, through the real Search RPC at the
edge with the settings that ship: each question alone, with what was said before it where the set has conversations, and
after two questions that have nothing to do with it. Beside it each side of the search alone. Then the time of a search
in an organisation of 10,000 passages, and how much of it the model and Milvus need when they are asked directly.

`python -m bench.retrieval [part of a set's name]...`; without the evaluation folder it says so and measures nothing.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

import grpc

from bench.evalsets import CUTOFF, FOLDER, SOURCES, EvalSet
from bench.mesh import RunningMesh, machine, percentile, running_mesh
from bench.organisation import Filler, register, sign_in
from parley.knowledge.v1.knowledge_service_pb2 import SearchRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from services.chat.finding import EARLIER_QUESTIONS
from services.knowledge.lexical import Rarity, rarity
from services.knowledge.passages import Passage

_LIMIT = 20
_SIDE_LIMIT = 50
_PASSAGES = 10_000
_WARM_UP, _ROUNDS = 20, 300
_SAID_BEFORE = ("Is there a vaccine against malaria?", "How is it given to children who are under five years old?")
_MERGING_S = 5.0  # Milvus merges what was written

Found = Mapping[str, Sequence[str]]


async def _found(questions: Mapping[str, str], search: Callable[[str], Awaitable[Sequence[str]]]) -> Found:
    """The documents found for each question, each once."""
    return {key: list(dict.fromkeys(await search(text)))[:CUTOFF] for key, text in questions.items()}


async def _found_after(organisation: "_Organisation", questions: EvalSet, before: Mapping[str, Sequence[str]]) -> Found:
    """The same for questions that something was said before."""
    return {
        key: list(dict.fromkeys(await organisation.search(text, before[key][-EARLIER_QUESTIONS:])))[:CUTOFF]
        for key, text in questions.questions.items()
    }


class _Organisation:
    """A filled organisation, asked through the edge and directly."""

    def __init__(self, edge: grpc.aio.Channel, filler: Filler, tenant_id: uuid.UUID, email: str) -> None:
        self._edge, self._filler, self._tenant_id, self._email = edge, filler, tenant_id, email
        self._names: dict[uuid.UUID, str] = {}
        self._texts: list[str] = []
        self._rarity = Rarity()

    async def fill(self, documents: Mapping[str, Sequence[Passage]]) -> None:
        self._names |= await self._filler.fill(self._tenant_id, documents)
        await asyncio.sleep(_MERGING_S)
        await self._filler.index.warm()
        self._texts += [passage.searchable_text for own in documents.values() for passage in own]
        self._rarity = rarity(self._texts)

    async def sign_in(self) -> None:
        self._metadata = await sign_in(self._edge, self._email)

    async def search(self, text: str, history: Sequence[str] = ()) -> Sequence[str]:
        request = SearchRequest(query=text, limit=_LIMIT, history=[earlier[:2000] for earlier in history])
        response = await KnowledgeServiceStub(self._edge).Search(request, metadata=self._metadata)
        return [passage.filename for passage in response.passages]

    async def follow_up(self, text: str) -> Sequence[str]:
        return await self.search(text, _SAID_BEFORE)

    async def near(self, text: str) -> Sequence[str]:
        [vector] = await self._filler.embedding.embed([text])
        return self._files(await self._filler.index.nearest(self._tenant_id, vector, _SIDE_LIMIT))

    async def sharing(self, text: str) -> Sequence[str]:
        terms = self._rarity.question_vector(text)
        return self._files(await self._filler.index.sharing(self._tenant_id, terms, _SIDE_LIMIT)) if terms else []

    def _files(self, found: Mapping[uuid.UUID, float]) -> Sequence[str]:
        return [self._names[passage_id] for passage_id in found]

    async def both(self, text: str) -> None:
        await asyncio.gather(self.near(text), self.sharing(text))

    async def embed(self, text: str) -> None:
        await self._filler.embedding.embed([text])


async def _quality(organisation: _Organisation, found: EvalSet) -> None:
    await organisation.sign_in()
    ours = found.ndcg(await _found(found.questions, organisation.search))
    lexical = found.ndcg(await _found(found.questions, organisation.sharing))
    dense = found.ndcg(await _found(found.questions, organisation.near))
    await organisation.sign_in()
    unrelated = found.ndcg(await _found_after(organisation, found, found.unrelated))
    passages = sum(map(len, found.documents.values()))
    verdict = "" if ours >= found.goal else "   MISSED"
    print(
        f"  {found.name:<15}{passages:6} passages {len(found.questions):5} questions   nDCG@10 {ours:.3f}"
        f"   goal {found.goal:.3f}   terms alone {lexical:.3f}   model alone {dense:.3f}"
        f"   after others {unrelated:.3f}{verdict}",
        flush=True,
    )
    if any(found.history.values()):
        await organisation.sign_in()
        whole = found.ndcg(await _found_after(organisation, found, found.history))
        print(f"  {'':<15}with what was said before   nDCG@10 {whole:.3f}", flush=True)


async def _speed(organisation: _Organisation, questions: Sequence[str]) -> None:
    await organisation.sign_in()
    lines: dict[str, Callable[[str], Awaitable[object]]] = {
        "Search through the edge": organisation.search,
        "  its model and Milvus, asked directly": organisation.both,
        "  Milvus by terms": organisation.sharing,
        "  the model": organisation.embed,
        "  the model, then Milvus by vector": organisation.near,
        "Search after two other questions": organisation.follow_up,
    }
    p50, p95 = dict[str, float](), dict[str, float]()
    for name, call in lines.items():
        times_ms: list[float] = []
        for place in range(_WARM_UP + _ROUNDS):
            began_s = time.perf_counter()
            await call(questions[place % len(questions)])
            times_ms.append((time.perf_counter() - began_s) * 1000)
        times_ms = times_ms[_WARM_UP:]
        p50[name], p95[name] = percentile(times_ms, 0.5), percentile(times_ms, 0.95)
        print(f"  {name:<40} p50 {p50[name]:5.1f} ms   p95 {p95[name]:5.1f} ms", flush=True)
    for share, of, goal_ms in (("p50", p50, 25), ("p95", p95, 60)):
        total, theirs = list(of.values())[:2]
        ours = max(0.0, total - theirs)
        print(f"  ours: {ours:.1f} ms of the {share}, {ours / total:.0%}; goal of the whole {goal_ms} ms")


async def measure(mesh: RunningMesh, wanted: Sequence[str]) -> None:
    print("retrieval through the Search RPC, one setting for all sets")
    async with mesh.edge_channel() as edge, Filler(mesh) as filler:
        for source in SOURCES:
            if wanted and not any(name.lower() in source.name.lower() for name in wanted):
                continue
            found = source.read()
            organisation = _Organisation(edge, filler, *await register(edge))
            await organisation.fill(found.documents)
            await _quality(organisation, found)
            if source is SOURCES[-1]:
                await organisation.fill(_others(_PASSAGES - sum(map(len, found.documents.values()))))
                print(f"time of a search among {_PASSAGES:,} passages, one at a time; client on the same cores")
                await _speed(organisation, list(found.questions.values()))


def _others(passages: int) -> Mapping[str, Sequence[Passage]]:
    """Documents of the other sets with so many passages."""
    taken: dict[str, Sequence[Passage]] = {}
    for source in SOURCES[:-1]:
        for name, own in source.read().documents.items():
            if len(own) <= passages:
                taken[f"{source.name} {name}"] = own
                passages -= len(own)
    return taken


def main(wanted: Sequence[str] = ()) -> None:
    if not FOLDER.is_dir():
        print(f"retrieval: not measured, there is no {FOLDER}; PARLEY_EVAL_DIR names the evaluation folder")
        return
    with running_mesh("--chat-models=echo") as mesh:
        asyncio.run(measure(mesh, wanted))


if __name__ == "__main__":
    print(machine())
    main(sys.argv[1:])
