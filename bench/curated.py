"""Does a question get the curated answer that answers it, and only then; and what does looking for one cost a search?

Public sets through the real CreateFaq and Search RPCs at the edge, each in an organisation of its own, with the
settings that ship: questions that a FAQ answers in other words, the same with half of the FAQs left out, questions of
other subjects, and other questions about a FAQ's paragraph. Then the time of a search beside 1,000 FAQs.

`python -m bench.curated [part of a set's name]...`; without the evaluation folder it says so and measures nothing.
"""

import asyncio
import csv
import json
import random
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import grpc

from bench.evalsets import FOLDER
from bench.mesh import RunningMesh, machine, percentile, running_mesh
from bench.organisation import register, sign_in
from parley.knowledge.v1.faq_service_pb2 import CreateFaqRequest
from parley.knowledge.v1.faq_service_pb2_grpc import FaqServiceStub
from parley.knowledge.v1.knowledge_service_pb2 import SearchRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub

_MOST_ALTERNATIVES = 10
_AT_ONCE = 4
_OTHERS = 300
_ROUNDS = 300
_LANGUAGES = {
    "English": "xquad/en",
    "German": "xquad/de",
    "Russian": "xquad/ru",
    "Arabic": "xquad/ar",
    "Chinese": "xquad/zh",
    "Hebrew": "heq-hebrew",
}

Faqs = Mapping[str, Sequence[str]]
"""The phrasings of each, the question first and as the key."""


@dataclass(frozen=True)
class Case:
    """FAQs, questions, and which FAQs answer each of them."""

    name: str
    faqs: Faqs
    asked: Mapping[str, frozenset[str]]


def _similar(language: str) -> tuple[set[str], Mapping[str, frozenset[str]]]:
    """COVID FAQs, and questions of people by which of those they ask."""
    answered_by: defaultdict[str, set[str]] = defaultdict(set)
    with (FOLDER / "covid-faq" / f"eval_question_similarity_{language}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["similar"] == "1":
                answered_by[row["question_2"].strip()].add(row["question_1"].strip())
    return {faq for faqs in answered_by.values() for faq in faqs}, {
        question: frozenset(faqs) for question, faqs in answered_by.items()
    }


def _alone(questions: set[str], share: float = 1.0) -> Faqs:
    kept = random.Random(0).sample(sorted(questions), int(len(questions) * share))
    return {question: [question] for question in kept}


def _rephrased(language: str) -> Case:
    """All but one of the questions that ask the same stand beside it; that one is asked."""
    faqs, asked = _similar(language)
    phrasings, last = {faq: [faq] for faq in sorted(faqs)}, {}
    for faq in phrasings:
        *others, question = sorted(text for text, answers in asked.items() if faq in answers)
        phrasings[faq] += others[:_MOST_ALTERNATIVES]
        last[question] = asked[question]
    known = {text for own in phrasings.values() for text in own}
    return Case(f"{language}, with alternatives", phrasings, {q: a for q, a in last.items() if q not in known})


def _about_the_same(folder: str) -> tuple[Faqs, list[str]]:
    """The first question about each paragraph as a FAQ, and the other questions about it, which ask something else."""
    lines = (FOLDER / folder / "dev" / "queries.jsonl").read_text().splitlines()
    texts = {entry["id"]: entry["text"] for entry in map(json.loads, lines)}
    about: defaultdict[str, list[str]] = defaultdict(list)
    for line in (FOLDER / folder / "dev" / "qrels.tsv").read_text().splitlines()[1:]:
        question, paragraph, _ = line.split("\t")
        about[paragraph].append(texts[question])
    return {first: [first] for first, *_ in about.values()}, [text for _, *others in about.values() for text in others]


def _varied(text: str) -> str:
    """The first word last, or a letter moved: what a person may also write."""
    words = text.rstrip("?？؟ ").split()
    if len(words) > 2 and len(text) % 2:
        return " ".join((*words[1:], words[0]))
    middle = len(text) // 2
    return text[:middle] + text[middle + 1] + text[middle] + text[middle + 2 :]


def _others() -> list[str]:
    """Questions to a bank, and claims of scientists."""
    with (FOLDER / "banking77" / "test.csv").open(encoding="utf-8") as file:
        bank = [row["text"] for row in csv.DictReader(file)]
    lines = (FOLDER / "beir-scifact" / "dev" / "queries.jsonl").read_text().splitlines()
    return random.Random(0).sample(bank, _OTHERS) + [json.loads(line)["text"] for line in lines]


def _nothing(questions: Sequence[str]) -> Mapping[str, frozenset[str]]:
    return dict.fromkeys(questions, frozenset())


def cases() -> Iterator[Case]:
    faqs, asked = _similar("en")
    yield Case("en, in other words", _alone(faqs), asked)
    yield Case("en, half of the FAQs missing", _alone(faqs, 0.5), asked)
    yield _rephrased("en")
    yield Case("en, other subjects", _alone(faqs), _nothing(_others()))
    faqs, asked = _similar("de")
    yield Case("de, in other words", _alone(faqs), asked)
    yield _rephrased("de")
    for language, folder in _LANGUAGES.items():
        first, others = _about_the_same(folder)
        varied = {_varied(text): frozenset((text,)) for text in first}
        yield Case(f"{language}, small variations", first, varied)
        yield Case(f"{language}, same paragraph", first, _nothing(others))


class _Organisation:
    """One with FAQs, asked through the edge."""

    def __init__(self, edge: grpc.aio.Channel) -> None:
        self._edge = edge
        self._questions: dict[str, str] = {}

    async def begin(self) -> None:
        _, email = await register(self._edge)
        self._metadata = await sign_in(self._edge, email)

    async def add(self, phrasings: Sequence[str]) -> None:
        question, *alternatives = phrasings
        request = CreateFaqRequest(
            request_id=str(uuid.uuid4()), question=question[:300], alternatives=alternatives, answer="So."
        )
        response = await FaqServiceStub(self._edge).CreateFaq(request, metadata=self._metadata)
        self._questions[response.faq.id] = question

    async def answering(self, question: str) -> str:
        """The question of the FAQ that came first; empty when none did."""
        request = SearchRequest(query=question, limit=1)
        response = await KnowledgeServiceStub(self._edge).Search(request, metadata=self._metadata)
        return self._questions.get(response.passages[0].faq_id, "") if response.passages else ""


async def _quality(edge: grpc.aio.Channel, case: Case) -> None:
    organisation = _Organisation(edge)
    await organisation.begin()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def answered(question: str) -> tuple[str, str]:
        async with slots:
            return question, await organisation.answering(question)

    for phrasings in case.faqs.values():
        await organisation.add(phrasings)
    found = dict(await asyncio.gather(*map(answered, case.asked)))
    given = [question for question, faq in found.items() if faq]
    right = sum(found[question] in case.asked[question] for question in given)
    answerable = sum(bool(answers & case.faqs.keys()) for answers in case.asked.values())
    line = f"  {case.name:<30}{len(case.faqs):5} FAQs {len(found):5} questions   wrong {len(given) - right:3}"
    if answerable:
        line += f"   precision {right / max(len(given), 1):.3f}   recall {right / answerable:.2f} of {answerable}"
    else:
        line += f"   of them {(len(given) - right) / len(found):.1%}"
    print(line, flush=True)


async def _speed(edge: grpc.aio.Channel, mesh: RunningMesh) -> None:
    _, questions = _about_the_same("xquad/en")
    for count in (0, 100, 1000):
        organisation = _Organisation(edge)
        await organisation.begin()
        for number in range(count):
            await organisation.add([f"{questions[number % len(questions)]} ({number})"])
        times_ms, cpu_s = [], 0.0
        for place in range(-20, _ROUNDS):
            if not place:
                cpu_s = mesh.cpu_seconds("knowledge")
            began_s = time.perf_counter()
            await organisation.answering(questions[place])
            times_ms.append((time.perf_counter() - began_s) * 1000)
        cpu_ms = (mesh.cpu_seconds("knowledge") - cpu_s) / _ROUNDS * 1000
        p50, p95 = percentile(times_ms[20:], 0.5), percentile(times_ms[20:], 0.95)
        print(f"  {count:5} FAQs: Search p50 {p50:.1f} ms, p95 {p95:.1f} ms; processor of knowledge {cpu_ms:.2f} ms")


async def measure(mesh: RunningMesh, wanted: Sequence[str]) -> None:
    print("curated answers through the Search RPC, one setting for all sets")
    async with mesh.edge_channel() as edge:
        for case in cases():
            if not wanted or any(part.lower() in case.name.lower() for part in wanted):
                await _quality(edge, case)
        if not wanted or "time" in wanted:
            print("time of a search, one at a time, in an organisation without documents")
            await _speed(edge, mesh)


def main(wanted: Sequence[str] = ()) -> None:
    if not FOLDER.is_dir():
        print(f"curated answers: not measured, there is no {FOLDER}; PARLEY_EVAL_DIR names the evaluation folder")
        return
    with running_mesh("--chat-models=echo") as mesh:
        asyncio.run(measure(mesh, wanted))


if __name__ == "__main__":
    print(machine())
    main(sys.argv[1:])
