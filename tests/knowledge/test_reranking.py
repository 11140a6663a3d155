"""The rerank stage: with a real model on a real Triton, and without one that answers."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.knowledge.passages import Passage
from services.knowledge.rerank_model import RerankModel
from services.knowledge.reranking import BEST, Reranking
from services.shared.errors import Reason, Unavailable
from stack import catalog, triton
from stack.mesh import Mesh
from stack.part import Part
from tests.knowledge.library import Library

MODEL = Path(__file__).parent / "models" / "phrases"


@dataclass(frozen=True)
class Found:
    passage: Passage


def found(*texts: str) -> list[Found]:
    return [Found(Passage(place, text)) for place, text in enumerate(texts)]


def texts(passages: Sequence[Found]) -> list[str]:
    return [one.passage.text for one in passages]


class Lengths:
    """Implements Scorer: longer is better."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.fails = False

    async def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        self.asked.append(texts)
        if self.fails:
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "down")
        return [len(text) for text in texts]


class Stage:
    """A stage, and what it counted."""

    def __init__(self, scorer: object, timeout_s: float = 10.0) -> None:
        self.counted: list[str] = []
        self.ordered = Reranking(scorer, timeout_s, self.counted.append)


async def test_the_best_scores_come_first_and_equal_ones_stay_in_order() -> None:
    stage = Stage(Lengths())
    assert texts(await stage.ordered("x", found("a", "bb", "c", "ddd"))) == ["ddd", "bb", "a", "c"]
    assert stage.counted == ["done"]


async def test_only_the_best_are_read_again() -> None:
    scorer, many = Lengths(), found(*("x" * number for number in range(1, BEST + 6)))
    ordered = await Stage(scorer).ordered("x", many)
    assert [len(text) for text in texts(ordered)] == [*range(BEST, 0, -1), *range(BEST + 1, BEST + 6)]
    assert [len(asked) for asked in scorer.asked] == [BEST]


@pytest.mark.parametrize("few", [[], found("one")], ids=["nothing", "one"])
async def test_where_there_is_no_order_no_model_is_asked(few: list[Found]) -> None:
    stage = Stage(scorer := Lengths())
    assert await stage.ordered("x", few) == few
    assert (scorer.asked, stage.counted) == ([], [])


async def test_headings_are_read_too() -> None:
    scorer = Lengths()
    one = Found(Passage(0, "Three months.", headings=("Contract", "Notice")))
    await Stage(scorer).ordered("x", [one, *found("Nothing.")])
    assert scorer.asked[0][0] == "Contract > Notice\nThree months."


async def test_without_the_model_the_order_stays(caplog: pytest.LogCaptureFixture) -> None:
    scorer = Lengths()
    scorer.fails = True
    stage = Stage(scorer)
    assert texts(await stage.ordered("x", found("a", "bb"))) == ["a", "bb"]
    assert stage.counted == ["skipped"]
    assert "goes on without the rerank model" in caplog.text


@pytest.fixture(scope="module")
async def served_by_triton(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    def part(mesh: Mesh) -> Part:
        return triton.part(replace(mesh, options=replace(mesh.options, chat_models=(), rerank_model=MODEL)))

    async with catalog.running(tmp_path_factory.mktemp("mesh"), part) as mesh:
        yield mesh


@pytest.fixture
async def model(served_by_triton: Mesh) -> AsyncIterator[RerankModel]:
    async with RerankModel(*address_of(served_by_triton)) as model:
        yield model


def address_of(mesh: Mesh, name: str = "phrases", timeout_s: float = 20.0) -> tuple[object, ...]:
    files = SimpleNamespace(
        tls_ca_file=mesh.ca_file, tls_cert_file=mesh.cert_file("knowledge"), tls_key_file=mesh.key_file("knowledge")
    )
    return mesh.address("triton"), name, files, timeout_s


BITES = ("The man bites the dog.", "Nobody bites.", "The dog bites the man.")


async def test_a_model_on_triton_scores_each_text(model: RerankModel) -> None:
    await model.probe()
    assert await model.scores("does the dog bite", BITES) == [2.0, 0.0, 2.0]
    assert await model.scores("האם הכלב נשך", ["הכלב נשך את האיש", ""]) == [2.0, 0.0]
    assert len(await model.scores("dog", ["dog"] * BEST)) == BEST


async def test_search_takes_the_order_of_the_model(model: RerankModel, library: Library) -> None:
    await library.hold_apart(*BITES)
    before = await library.find("the dog bites the man")
    stage = Stage(model)
    library.rerank_by(stage.ordered)
    assert (await library.find("the dog bites the man"))[0] == BITES[2]
    assert (await library.find("the man bites the dog"))[0] == BITES[0]
    assert sorted(await library.find("nobody bites")) == sorted(before)
    assert stage.counted == ["done"] * 3


@pytest.mark.parametrize("text", ["This is too slow.", "This has no score."])
async def test_search_goes_on_without_a_slow_or_broken_model(
    served_by_triton: Mesh, library: Library, text: str
) -> None:
    await library.hold_apart(text, *BITES)
    before = await library.find("the man bites")
    async with RerankModel(*address_of(served_by_triton)) as model:
        stage = Stage(model, timeout_s=0.5)
        library.rerank_by(stage.ordered)
        assert await library.find("the man bites") == before
    assert stage.counted == ["skipped"]


async def test_a_model_that_is_not_there_is_named_when_asked(served_by_triton: Mesh) -> None:
    async with RerankModel(*address_of(served_by_triton, "nope")) as missing:
        with pytest.raises(Unavailable):
            await missing.scores("dog", BITES)
        with pytest.raises(RuntimeError, match="nope"):
            await missing.probe()
