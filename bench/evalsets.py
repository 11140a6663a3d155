"""The retrieval sets of the evaluation folder, which is not part of the project, and the figure they are judged by."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from services.knowledge.passages import Block, Passage, cut
from stack.mesh import PROJECT

FOLDER = Path(os.environ.get("PARLEY_EVAL_DIR", PROJECT.parent / "shared" / "eval"))
CUTOFF = 10


@dataclass(frozen=True)
class EvalSet:
    """Texts, questions about them, and which texts answer each question (by grade)."""

    name: str
    goal: float
    documents: Mapping[str, Sequence[Passage]]
    questions: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]
    history: Mapping[str, Sequence[str]]
    """What the asker had said before each question, newest last; nothing where a set has no conversations."""

    @property
    def unrelated(self) -> Mapping[str, Sequence[str]]:
        """Before each question two others of the set that ask for something else."""
        keys, before = list(self.questions), {}
        for place, key in enumerate(keys):
            others = (keys[(place + step) % len(keys)] for step in range(7, len(keys)))
            strangers = (other for other in others if not self.relevant[other].keys() & self.relevant[key].keys())
            before[key] = [self.questions[other] for other in islice(strangers, 2)]
        return before

    def ndcg(self, found: Mapping[str, Sequence[str]]) -> float:
        """Mean nDCG@10 of the documents found for each question, best first."""
        return sum(_ndcg(found[key], grades) for key, grades in self.relevant.items()) / len(self.relevant)


@dataclass(frozen=True)
class Source:
    name: str
    folder: str
    goal: float

    def read(self) -> EvalSet:
        folder = FOLDER / self.folder
        relevant: dict[str, dict[str, int]] = {}
        for line in (folder / "dev" / "qrels.tsv").read_text().splitlines()[1:]:
            question, document, grade = line.split("\t")
            relevant.setdefault(question, {})[document] = int(grade)
        entries = {entry["id"]: entry for entry in _entries(folder / "dev" / "queries.jsonl")}
        documents = {entry["id"]: _passages(entry) for entry in _entries(folder / "corpus.jsonl")}
        questions = {key: entries[key]["text"] for key in relevant}
        history = {key: _asked_before(entries[key]) for key in relevant}
        return EvalSet(self.name, self.goal, documents, questions, relevant, history)


SOURCES = (
    Source("XQuAD English", "xquad/en", 0.98),
    Source("XQuAD German", "xquad/de", 0.95),
    Source("XQuAD Spanish", "xquad/es", 0.95),
    Source("XQuAD Russian", "xquad/ru", 0.90),
    Source("XQuAD Arabic", "xquad/ar", 0.945),
    Source("XQuAD Chinese", "xquad/zh", 0.95),
    Source("HeQ Hebrew", "heq-hebrew", 0.94),
    Source("MTRAG mini", "mtrag-un/mini-retrieval", 0.80),
    Source("SciFact", "beir-scifact", 0.71),
)


def _entries(file: Path) -> Sequence[Mapping[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _asked_before(entry: Mapping[str, Any]) -> Sequence[str]:
    return [message["content"] for message in entry.get("history", ()) if message["role"] == "user"]


def _passages(entry: Mapping[str, Any]) -> Sequence[Passage]:
    """As of a document whose only heading is the title."""
    title = entry.get("title", "")
    return list(cut([Block(entry["text"], headings=(title,) if title else ())]))


def _ndcg(found: Sequence[str], grades: Mapping[str, int]) -> float:
    gain = _gain([grades.get(document, 0) for document in found])
    return gain / _gain(sorted(grades.values(), reverse=True))


def _gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:CUTOFF]))
