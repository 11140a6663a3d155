"""How well are files read? Over the public evaluation files: how many index, and how like the expected text.

Goals: 97% of the files that hold text index; every hostile file ends within 10 s of work, and this process grows by
at most 50 MB. Similarity is rapidfuzz's ratio (2 x longest common subsequence over both lengths) of the words in lower
case, without white space and marks: the expected texts are Markdown, and other readers' work rather than the truth.
PARLEY_EVALUATION names the folder of the files if it is elsewhere; an argument reads only what has it in its path.
"""

import asyncio
import os
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from rapidfuzz import fuzz

from services.knowledge.extraction import ExtractionProcess
from services.knowledge.indexing import Unreadable
from services.knowledge.passages import Passage

EVALUATION = Path(os.environ.get("PARLEY_EVALUATION", Path(__file__).parents[2] / "shared" / "eval"))
_EXPECTED = EVALUATION / "docs" / "docling" / "groundtruth"
_WORD = re.compile(r"\w+")
_MARKUP = re.compile(r"<!--.*?-->|\\(?=\W)|&(amp|lt|gt|quot);|(?<=\])\([^)\s]*\)", re.S)  # links, too
_MEMORY_BYTES, _CPU_S, _WALL_S = 1024 * 1024 * 1024, 20, 60.0
WITHOUT_TEXT = {
    "empty.xlsx",
    "random.bin",
    "007-imagemagick-images__imagemagick-ASCII85Decode.pdf",
    "007-imagemagick-images__imagemagick-lzw.pdf",
    "019-grayscale-image__grayscale-image.pdf",
}
"""Of the files under docs: the last three are pictures without a word."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file: its passages, or why there are none."""

    path: Path
    seconds: float
    cpu_s: float
    content_type: str
    passages: Sequence[Passage]
    failure: str

    @property
    def kind(self) -> str:
        return self.path.suffix[1:].lower() or self.path.name


async def outcome(path: Path) -> Outcome:
    process = ExtractionProcess(_MEMORY_BYTES, _CPU_S, _WALL_S)
    began_s, cpu_s = time.monotonic(), _children_cpu_s()
    content = await asyncio.to_thread(path.read_bytes)
    passages: list[Passage] = []
    content_type = failure = ""
    try:
        async with process.read(_content(content)) as extracted:
            content_type, passages = extracted.content_type, list(extracted.passages)
    except Unreadable as error:
        failure = f"{error.failure.reason}: {error.failure.message}"
    return Outcome(path, time.monotonic() - began_s, _children_cpu_s() - cpu_s, content_type, passages, failure)


async def _content(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def text_of(passages: Sequence[Passage]) -> str:
    """The text with each heading once, where it begins."""
    lines: list[str] = []
    above: tuple[str, ...] = ()
    for passage in passages:
        same = next((n for n, (a, b) in enumerate(zip(above, passage.headings, strict=False)) if a != b), len(above))
        lines += [*passage.headings[same:], passage.text]
        above = passage.headings
    return "\n".join(lines)


def similarity(text: str, expected: str) -> float:
    """0 to 1, of the words alone."""
    return fuzz.ratio(_words(text), _words(expected)) / 100


def _words(text: str) -> str:
    return "".join(_WORD.findall(_MARKUP.sub("", text).lower())).replace("_", "")


def expected_text(path: Path) -> str | None:
    expected = _EXPECTED / f"{path.name}.md"
    return expected.read_text() if "groundtruth" not in path.parts and expected.exists() else None


def files(folder: str, only: str = "") -> Iterator[Path]:
    paths = sorted((EVALUATION / folder).rglob("*"))
    return (path for path in paths if path.is_file() and only in str(path))


def _print_shares(outcomes: Sequence[Outcome]) -> None:
    kinds: defaultdict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        kinds[one.kind].append(one)
    print(f"{'type':<12}{'files':>6}{'indexed':>9}{'compared':>10}{'similarity':>12}")
    for kind, of_kind in sorted(kinds.items()):
        pairs = [(one, expected) for one in of_kind if (expected := expected_text(one.path)) is not None]
        alike = [similarity(text_of(one.passages), expected) for one, expected in pairs]
        indexed = sum(1 for one in of_kind if one.passages)
        shown = f"{mean(alike):12.3f}" if alike else ""
        print(f"{kind:<12}{len(of_kind):6}{indexed:9}{len(alike):10}{shown}")
    with_text = [one for one in outcomes if one.path.name not in WITHOUT_TEXT]
    indexed = sum(1 for one in with_text if one.passages)
    print(f"{indexed} of {len(with_text)} files with text index: {indexed / len(with_text):.1%} (goal 97%)")


async def measure(only: str = "", *, each: bool = False) -> None:
    for folder in ("docs", "hostile"):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes = [await outcome(path) for path in files(folder, only)]
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"\n{folder}: {len(outcomes)} files, this process grew by {grown_mb:.0f} MB")
        if not outcomes:
            continue
        for one in outcomes:
            expected = expected_text(one.path)
            if each or (folder == "docs" and one.failure):
                alike = "     " if expected is None else f"{similarity(text_of(one.passages), expected):.3f}"
                said = one.failure or f"{one.content_type}, {len(one.passages)} passages"
                print(f"  {one.cpu_s:5.1f} s {alike} {one.path.relative_to(EVALUATION / folder)}: {said}")
        if folder == "docs":
            _print_shares(outcomes)
        slowest = max(outcomes, key=lambda one: one.cpu_s)
        print(f"slowest: {slowest.cpu_s:.1f} s of processor, {slowest.seconds:.1f} s, {slowest.path.name} (goal 10 s)")


def main() -> None:
    if EVALUATION.is_dir():
        asyncio.run(measure())
    else:
        print(f"extraction: not measured, {EVALUATION} is absent")


if __name__ == "__main__":
    asyncio.run(measure(*sys.argv[1:2], each=True))
