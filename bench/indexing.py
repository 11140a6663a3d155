"""How fast are files indexed, and who notices?

Passages a second from the first upload to the last INDEXED, for files of few, some and many passages, beside what the
embedding model alone makes of the same texts in batches of 32, two under way, in the same run. Goal: 60% of it.
Then turns of the `echo` model while 200 files are ingested, beside the same turns while nothing is.

`python -m bench.indexing [turns]`: turns alone; without the evaluation folder it says so and measures nothing.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence

import grpc

from bench import turns
from bench.evalsets import FOLDER
from bench.mesh import RunningMesh, machine, percentile, running_mesh
from bench.organisation import Filler, register, sign_in
from bench.uploads import Ingested, ingest
from services.knowledge.embedding import EmbeddingModel
from services.shared.serving.settings import TlsSettings

_BATCH, _UNDER_WAY = 32, 2
_GOAL = 0.6
_TOKENS, _TOKENS_PER_S = 50, 50
_TURNS = 25
_PARTS = ("knowledge", "triton", "milvus", "postgres", "s3", "envoy", "nats")
Files = Mapping[str, bytes]


def small_files(count: int) -> Files:
    """Of one to three passages."""
    paths = sorted((FOLDER / "heq-hebrew-docs" / "docs").iterdir())[:count]
    return {path.name: path.read_bytes() for path in paths}


def usual_files(count: int) -> Files:
    """Of every type and size."""
    paths = [
        path for path in sorted((FOLDER / "docs").rglob("*")) if path.is_file() and path.parts[-2] != "groundtruth"
    ]
    return {f"{place}-{path.name}": path.read_bytes() for place, path in enumerate(paths[:: len(paths) // count])}


def large_files(count: int, abstracts: int = 60) -> Files:
    """Of a hundred passages or so."""
    lines = iter((FOLDER / "beir-scifact" / "corpus.jsonl").read_text().splitlines())
    files: dict[str, bytes] = {}
    for number in range(count):
        entries = [json.loads(line) for line in itertools.islice(lines, abstracts)]
        text = "\n\n".join(f"# {entry['title']}\n\n{entry['text']}" for entry in entries)
        files[f"abstracts-{number}.md"] = text.encode()
    return files


async def _rate(mesh: RunningMesh, edge: grpc.aio.Channel, filler: Filler, name: str, files: Files) -> None:
    tenant_id, email = await register(edge)
    metadata = await sign_in(edge, email)
    before = {part: _cpu_s(mesh, part) for part in _PARTS}
    began_s = time.monotonic()
    done = await ingest(edge, metadata, files)
    took_s = time.monotonic() - began_s
    spent = {part: _cpu_s(mesh, part) - before[part] for part in _PARTS}
    texts = await filler.texts(tenant_id)
    began_s, model_cpu_s = time.monotonic(), _cpu_s(mesh, "triton")
    await _embedded(mesh, texts)
    alone_s, alone_cpu_s = time.monotonic() - began_s, _cpu_s(mesh, "triton") - model_cpu_s
    rate, alone = len(texts) / took_s, len(texts) / alone_s
    missed = "" if rate >= _GOAL * alone else "   MISSED"
    print(f"  {name}: {_indexed(done)} of {len(files)} files, {len(texts)} passages")
    print(f"    {rate:6.1f} passages/s; the model alone {alone:6.1f}; {rate / alone:.0%} (goal {_GOAL:.0%}){missed}")
    shares = "  ".join(f"{part} {spent[part]:.1f}" for part in _PARTS)
    share = alone_cpu_s / sum(spent.values())
    print(f"    processor s: {shares}; the model alone {alone_cpu_s:.1f}, {share:.0%} of these")


def _indexed(done: Sequence[Ingested]) -> int:
    return sum(one.is_indexed for one in done)


async def _embedded(mesh: RunningMesh, texts: Sequence[str]) -> None:
    tls = mesh.data_dir / "tls"
    files = TlsSettings(
        tls_ca_file=tls / "ca.pem", tls_cert_file=tls / "knowledge.pem", tls_key_file=tls / "knowledge-key.pem"
    )
    batches = (texts[begin : begin + _BATCH] for begin in range(0, len(texts), _BATCH))

    async def work() -> None:
        async with EmbeddingModel(mesh.triton, "embedding", files) as model:  # each sends one batch at a time
            for batch in batches:
                await model.embed(batch)

    await asyncio.gather(*(work() for _ in range(_UNDER_WAY)))


def _cpu_s(mesh: RunningMesh, part: str) -> float:
    """With the children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in mesh.processes(part))


async def _turns(edge: grpc.aio.Channel, *, search: bool) -> str:
    """First tokens and gaps, one turn after the other."""
    [person] = await turns.people(edge, 1)
    first_ms, gaps_ms = list[float](), list[float]()
    text = f"tokens={_TOKENS} tokens_per_s={_TOKENS_PER_S}"
    for _ in range(_TURNS):
        conversation_id = await turns.conversation(edge, person)
        before_s, gaps = time.perf_counter(), list[float]()
        async for _ in turns.stream(edge, person, conversation_id, text, _TOKENS, search=search):
            now_s = time.perf_counter()
            gaps.append((now_s - before_s) * 1000)
            before_s = now_s
        first_ms.append(gaps[0])
        gaps_ms += gaps[1:]
    shown = (("first token", first_ms, (0.5, 0.95)), ("gaps", gaps_ms, (0.5, 0.99)))
    return "   ".join(
        f"{name} {' '.join(f'p{share * 100:.0f} {percentile(values, share):4.0f}' for share in shares)} ms"
        for name, values, shares in shown
    )


async def _disturbance(edge: grpc.aio.Channel) -> None:
    print(f"turns of the echo model at {_TOKENS_PER_S} tokens/s, one after the other")
    files = {**large_files(30), **usual_files(70), **small_files(100)}
    _, email = await register(edge)
    metadata = await sign_in(edge, email)
    ingesting: asyncio.Future[Sequence[Ingested]] | None = None
    for name in ("nothing is ingested", f"{len(files)} files are ingested"):
        if ingesting is None and name[0].isdigit():
            ingesting = asyncio.ensure_future(ingest(edge, metadata, files))
        for search in (False, True):
            said = await _turns(edge, search=search)
            print(f"  {name:<25} {'with' if search else 'without'} search   {said}", flush=True)
    assert ingesting
    if ingesting.done():
        print("  the files were indexed before the turns were over")
    ingesting.cancel()


async def measure(mesh: RunningMesh, *, rates: bool = True) -> None:
    async with mesh.edge_channel() as edge, Filler(mesh) as filler:
        _, email = await register(edge)
        await ingest(edge, await sign_in(edge, email), small_files(4))
        if rates:
            print("indexing, from the first upload to the last INDEXED")
            await _rate(mesh, edge, filler, "small files", small_files(150))
            await _rate(mesh, edge, filler, "usual files", usual_files(80))
            await _rate(mesh, edge, filler, "large files", large_files(8))
        await _disturbance(edge)


def main(*, rates: bool = True) -> None:
    if not FOLDER.is_dir():
        print(f"indexing: not measured, there is no {FOLDER}; PARLEY_EVAL_DIR names the evaluation folder")
        return
    with running_mesh("--chat-models=echo") as mesh:
        asyncio.run(measure(mesh, rates=rates))


if __name__ == "__main__":
    print(machine())
    main(rates="turns" not in sys.argv[1:])
