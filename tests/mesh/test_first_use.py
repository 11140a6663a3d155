"""The main job, by the command line: put a document in, ask, read the answer and its sources."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.documents import pdf

HANDBOOK = (
    "Travel policy. Employees of Example may fly in business class when the flight is longer than six hours. "
    "Hotels cost at most 180 euros a night.",
    "Parking. The garage of the Zurich office is called Bluebird. The code of the garage gate is 4711 and it "
    "changes every year in March.",
)


@pytest.fixture(scope="session")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "handbook.pdf"
    path.write_bytes(pdf(HANDBOOK))
    return path


@pytest.fixture(scope="session")
def ingested(mesh: Any, handbook: Path) -> subprocess.CompletedProcess[str]:
    return mesh.parley("ingest", str(handbook))


def test_ingest_shows_when_the_passages_can_be_found(ingested: subprocess.CompletedProcess[str]) -> None:
    assert ingested.returncode == 0, ingested.stdout + ingested.stderr
    assert "handbook.pdf" in ingested.stdout
    assert re.search(r"ready: \d passages, 2 pages", ingested.stdout)


def test_a_file_that_is_there_already_is_no_failure(mesh: Any, ingested: object, handbook: Path) -> None:
    again = mesh.parley("ingest", str(handbook))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "already there, ready" in again.stdout


def test_documents_are_listed_shared_and_deleted(mesh: Any, tmp_path: Path) -> None:
    path = tmp_path / "it's.txt"
    path.write_text("The heron of the archive stands still.")
    mesh.parley("ingest", "--collection", "Birds & Co", "--private", str(path))
    listed = mesh.parley("documents", "--collection", "Birds & Co")
    assert re.search(r"it's\.txt +Birds & Co +indexed, private", listed.stdout), listed.stdout + listed.stderr
    [document_id] = re.findall(r"[0-9a-f-]{36}", listed.stdout)
    assert mesh.parley("documents", "--share", document_id).stdout == f"{document_id}: shared\n"
    assert "private" not in mesh.parley("documents", "--collection", "Birds & Co").stdout
    assert mesh.parley("documents", "--delete", document_id).returncode == 0
    gone = mesh.parley("documents", "--delete", document_id)
    assert (gone.returncode, "DOCUMENT_NOT_FOUND" in gone.stderr) == (1, True)


def test_ask_prints_the_answer_and_the_page_it_comes_from(mesh: Any, ingested: object) -> None:
    asked = mesh.parley("ask", "What is the name of the garage of the Zurich office?")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    answer, _, sources = asked.stdout.partition("Sources")
    assert len(answer.split()) >= 3  # what they say is up to a model of 135 million parameters
    assert "[1] handbook.pdf, page 2" in sources


def test_ask_goes_on_with_a_conversation(mesh: Any, ingested: object) -> None:
    first = mesh.parley("ask", "--model=echo", "remember the heron")
    conversation = re.search(r"--conversation ([0-9a-f-]{36})", first.stdout)
    assert conversation, first.stdout
    second = mesh.parley("ask", f"--conversation={conversation[1]}", "--model=echo", "and the egret")
    assert second.returncode == 0
    assert "and the egret" in second.stdout
    assert conversation[1] in second.stdout


def test_the_last_question_is_asked_again_edited_and_its_answer_rated(mesh: Any) -> None:
    first = mesh.parley("ask", "--model=echo", "the heron stands")
    conversation = re.search(r"--conversation ([0-9a-f-]{36})", first.stdout)
    assert conversation, first.stdout
    here = f"--conversation={conversation[1]}"
    again = mesh.parley("ask", "--again", "--model=echo")
    edited = mesh.parley("ask", "--again", "--model=echo", here, "the crane stands")
    assert "the heron stands" in again.stdout
    assert conversation[1] in again.stdout
    assert "the crane stands" in edited.stdout
    rated = mesh.parley("rate", here, "good", "It is a crane.")
    assert (rated.returncode, rated.stdout) == (0, "Rated good: the answer to the crane stands\n"), rated.stderr
    nothing = mesh.parley("rate", f"--conversation={uuid4()}", "bad")
    assert (nothing.returncode, "CONVERSATION_NOT_FOUND" in nothing.stderr) == (1, True)


def test_token_prints_nothing_but_a_token(mesh: Any) -> None:
    printed = mesh.parley("token")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed.stdout)


def test_who_signs_in_stays_signed_in_until_the_logout(mesh: Any) -> None:
    password = (mesh.data_dir / "admin-password").read_text().strip()
    assert mesh.parley("login", "--email=admin@localhost", f"--password={password}").returncode == 0
    session = mesh.data_dir / "client-session.json"
    assert session.stat().st_mode & 0o777 == 0o600
    kept = json.loads(session.read_text())["access_token"]
    assert mesh.parley("token").stdout.strip() == kept
    assert mesh.parley("logout").returncode == 0
    assert json.loads(session.read_text()) == {}


def test_wrong_password_is_refused_in_words(mesh: Any) -> None:
    refused = mesh.parley("login", "--email=admin@localhost", "--password=wrong")
    assert refused.returncode == 1
    assert "BAD_CREDENTIALS" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_corrupt_pdf_fails_alone_and_says_why(mesh: Any, tmp_path: Path, handbook: Path) -> None:
    broken, good = tmp_path / "broken.pdf", tmp_path / "good.md"
    broken.write_bytes(handbook.read_bytes()[:300])
    good.write_text("# Heron\n\nThe heron stands in the water.\n")
    both = mesh.parley("ingest", str(broken), str(good))
    assert both.returncode == 1
    assert re.search(r"broken\.pdf: .*\(DOCUMENT_CORRUPT\)", both.stdout)
    assert re.search(r"good\.md.*ready: 1 passage", both.stdout)


def test_an_empty_file_is_refused(mesh: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    refused = mesh.parley("ingest", str(empty))
    assert refused.returncode == 1
    assert "DOCUMENT_EMPTY" in refused.stdout


def test_admin_password_is_closed_to_others(mesh: Any) -> None:
    assert (mesh.data_dir / "admin-password").stat().st_mode & 0o777 == 0o600
