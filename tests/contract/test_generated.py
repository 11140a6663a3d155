"""gen/ is what `make gen` makes of proto/ now; the baseline moved on only with a reason."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from stack.mesh import PROJECT

PROGRAMS = PROJECT / ".venv" / "bin"


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}  # generators call each other by name
    command = [PROGRAMS / "buf", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_generated_code_equals_a_fresh_generation(tmp_path: Path) -> None:
    if not (PROJECT / "web" / "node_modules").exists():
        pytest.fail("the TypeScript generator is missing: run `make install web/node_modules`")
    for template in ("buf.gen.yaml", "buf.gen.validate.yaml"):
        generated = buf("generate", "--template", f"proto/{template}", "--output", str(tmp_path))
        assert generated.returncode == 0, generated.stderr
    (tmp_path / "gen" / "descriptors").mkdir()
    image = tmp_path / "gen" / "descriptors" / "parley.binpb"
    assert buf("build", "--exclude-source-info", "--output", str(image)).returncode == 0
    fresh, committed = files_below(tmp_path / "gen"), files_below(PROJECT / "gen")
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    assert not stale, f"run `make gen` and commit: {stale}"


def test_contract_breaks_nothing_against_its_baseline() -> None:
    compared = buf("breaking", "--against", "proto/baseline.binpb")
    assert compared.returncode == 0, compared.stdout


def test_a_breaking_change_is_found(tmp_path: Path) -> None:
    """The check above bites: a contract with a field renumbered fails it."""
    broken = tmp_path / "proto"
    subprocess.run(["cp", "-r", PROJECT / "proto", broken], check=True)
    path = broken / "parley" / "auth" / "v1" / "auth.proto"
    path.write_text(path.read_text().replace("string email = 3;", "string email = 9;"))
    (tmp_path / "buf.yaml").write_text((PROJECT / "buf.yaml").read_text())
    compared = subprocess.run(
        [PROGRAMS / "buf", "breaking", "--against", PROJECT / "proto" / "baseline.binpb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode != 0
    assert "email" in compared.stdout


def test_baseline_is_the_one_that_the_last_reason_speaks_of() -> None:
    *_, last = (PROJECT / "proto" / "BASELINE.md").read_text().strip().splitlines()
    _, _, digest, reason, _ = (cell.strip() for cell in last.split("|"))
    assert digest == hashlib.sha256((PROJECT / "proto" / "baseline.binpb").read_bytes()).hexdigest()[:16]
    assert len(reason) > 10
