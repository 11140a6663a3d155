"""`parley ingest` of folders, through faults, and `parley search`: by the command line, on the whole mesh."""

import asyncio
import io
import json
import os
import re
import signal
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import docx
import pytest

from stack.client.uploading import CHUNK_BYTES
from tests.documents import pdf
from tests.mesh.running import PROGRAMS, RunningMesh

LARGE_BYTES = 31 * 1024 * 1024


def large(name: str) -> bytes:
    """Little to index, and much to upload."""
    document = docx.Document()
    document.add_paragraph(f"The {name} waits at the weir.")
    file = io.BytesIO()
    document.save(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("word/media/noise.bin", os.urandom(LARGE_BYTES))
    return file.getvalue()


@asynccontextmanager
async def uploading(mesh: RunningMesh, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, while it uploads a large file."""
    await asyncio.to_thread(path.write_bytes, large(path.stem))
    command = (PROGRAMS / "parley", "ingest", f"--data-dir={mesh.data_dir}", str(path))
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*command, **pipes)
    try:
        async with asyncio.timeout(30):
            while not await received_bytes(mesh, path.name):
                assert process.returncode is None, await process.communicate()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def received_bytes(mesh: RunningMesh, name: str) -> int:
    rows = await mesh.rows("SELECT received_bytes FROM uploads WHERE filename = $1", name, service="knowledge")
    return rows[0][0] if rows else 0


def appended(mesh: RunningMesh) -> Counter[str]:
    """The chunks that knowledge was sent, by what became of them."""
    lines = (mesh.data_dir / "logs" / "knowledge-1.log").read_text().splitlines()
    return Counter(
        json.loads(line)["code"] for line in lines if '"/parley.knowledge.v1.KnowledgeService/AppendUpl' in line
    )


@pytest.mark.parametrize("part", ["knowledge-1", "envoy"])
async def test_an_upload_goes_on_where_it_was_cut_off(mesh: RunningMesh, part: str, tmp_path: Path) -> None:
    before = appended(mesh)["OK"]
    async with uploading(mesh, tmp_path / f"heron-{part}.docx") as process:
        mesh.kill(part)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, "ready: 1 passage" in out.decode()) == (0, True), out + err
    assert err.decode().count("The connection to the mesh broke") <= 1
    # The chunk that was on its way may have been sent twice.
    assert appended(mesh)["OK"] - before <= LARGE_BYTES // CHUNK_BYTES + 3


async def test_ctrl_c_says_what_is_done_and_leaves_no_document(mesh: RunningMesh, tmp_path: Path) -> None:
    async with uploading(mesh, tmp_path / "stopped.docx") as process:
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out.decode()) == (130, "1 not uploaded\n")
    assert err.decode() == "Stopped. No document is half there: what was being uploaded is dropped.\n"
    rows = await mesh.rows("SELECT FROM documents WHERE filename = 'stopped.docx'", service="knowledge")
    assert rows == []


def test_a_folder_is_ingested_and_each_failure_told(mesh: RunningMesh, tmp_path: Path) -> None:
    folder = tmp_path / "river"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    for number in range(12):
        (folder / f"{number:02}.md").write_text(f"# Lock {number}\n\nThe lock-keeper of lock {number} is called Otto.")
    (folder / "deep" / "copy.md").write_bytes((folder / "00.md").read_bytes())
    (folder / "deep" / "broken.pdf").write_bytes(pdf(["a page"])[:200])
    (folder / "deep" / ".hidden" / "secret.md").write_text("Nobody takes this.")
    (folder / "empty.txt").touch()
    (folder / "deep" / "round").symlink_to(folder)
    ran = mesh.parley("ingest", "--collection=Locks", str(folder), str(tmp_path / "gone"))
    assert ran.returncode == 1, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[-1] == "12 ready, 1 already there, 3 failed"
    assert sum("ready: 1 passage" in line for line in lines) == 13
    said = "\n".join(lines)
    assert re.search(r"deep/broken\.pdf: .*\(DOCUMENT_CORRUPT\)", said)
    assert re.search(r"river/empty\.txt: .*\(DOCUMENT_EMPTY\)", said)
    assert re.search(r"gone: There is no such file or folder\.", said)
    assert mesh.parley("documents", "--collection=Locks").stdout.count("indexed") == 12


def test_search_prints_where_the_passages_stand(mesh: RunningMesh, tmp_path: Path) -> None:
    path = tmp_path / "kite\x1b[31m.pdf"
    path.write_bytes(pdf(["An empty page about nothing much.", "The kite of Kassel is called Quirin. " * 20]))
    refused = mesh.parley("ingest", str(path))
    assert (refused.returncode, "\x1b" in refused.stdout) == (1, False)
    path = path.rename(tmp_path / "kite.pdf")
    assert mesh.parley("ingest", "--collection=Kites", str(path)).returncode == 0
    found = mesh.parley("search", "--limit=1", "What is the kite of Kassel called?")
    assert (found.returncode, found.stdout.splitlines()[0]) == (0, "[1] kite.pdf, page 2"), found.stderr
    assert "Quirin" in found.stdout
    assert len(found.stdout) < 500
    whole = json.loads(mesh.parley("search", "--json", "--limit=1", "kite of Kassel").stdout)
    assert [(passage["filename"], passage["page"]) for passage in whole] == [("kite.pdf", 2)]
    narrowed = mesh.parley("search", "--collection=Kites", "Quirin").stdout.splitlines()
    assert [line[4:] for line in narrowed if line[0] == "["] == ["kite.pdf, page 2", "kite.pdf, page 1"]
    assert "kite.pdf" not in mesh.parley("search", "--collection=", "Quirin").stdout
