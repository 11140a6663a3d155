"""The retrieval sets of the evaluation folder, which is not part of the project, and the figure they are judged by."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        questions = {entry["id"]: entry["text"] for entry in _entries(folder / "dev" / "queries.jsonl")}
        documents = {entry["id"]: _passages(entry) for entry in _entries(folder / "corpus.jsonl")}
        return EvalSet(self.name, self.goal, documents, {key: questions[key] for key in relevant}, relevant)


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


def _entries(file: Path) -> Sequence[Mapping[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _passages(entry: Mapping[str, str]) -> Sequence[Passage]:
    """As of a document whose only heading is the title."""
    title = entry.get("title", "")
    return list(cut([Block(entry["text"], headings=(title,) if title else ())]))


def _ndcg(found: Sequence[str], grades: Mapping[str, int]) -> float:
    gain = _gain([grades.get(document, 0) for document in found])
    return gain / _gain(sorted(grades.values(), reverse=True))


def _gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:CUTOFF]))
