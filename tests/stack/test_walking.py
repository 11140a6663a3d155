"""Which files `parley ingest` takes."""

from pathlib import Path

import pytest

from stack.client.walking import TooMany, find


def made(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(folder: Path, *places: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find(places).files]


def test_a_folder_gives_its_files_by_name_and_nothing_hidden(tmp_path: Path) -> None:
    made(tmp_path, "b.txt", "a.txt", "sub/deep/d.txt", "sub/c.txt", ".hidden", ".git/config", "sub/.cache/x", "a/e.txt")
    assert names(tmp_path, tmp_path) == ["a.txt", "b.txt", "a/e.txt", "sub/c.txt", "sub/deep/d.txt"]


def test_what_is_named_is_taken_as_it_is_and_once(tmp_path: Path) -> None:
    made(tmp_path, ".hidden", "a.txt")
    assert names(tmp_path, tmp_path / ".hidden", tmp_path, tmp_path / "a.txt") == [".hidden", "a.txt"]


def test_links_that_go_round_end(tmp_path: Path) -> None:
    made(tmp_path, "sub/a.txt", "elsewhere/b.txt")
    (tmp_path / "sub" / "round").symlink_to(tmp_path / "sub")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "sub" / "itself").symlink_to(tmp_path / "sub" / "itself")
    (tmp_path / "sub" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "sub" / "other").symlink_to(tmp_path / "elsewhere")
    found = names(tmp_path, tmp_path / "sub")
    assert sorted(Path(name).name for name in found) == ["a.txt", "b.txt"]


def test_what_is_no_file_is_said_and_the_rest_taken(tmp_path: Path) -> None:
    made(tmp_path, "a.txt")
    found = find([tmp_path / "gone", Path("/dev/null"), tmp_path])
    assert [path.name for path in found.files] == ["a.txt"]
    assert found.failures == {
        tmp_path / "gone": "There is no such file or folder.",
        Path("/dev/null"): "It is no file.",
    }


def test_there_is_a_limit(tmp_path: Path) -> None:
    made(tmp_path, *(f"{number}.txt" for number in range(4)))
    assert len(find([tmp_path], most=4).files) == 4
    with pytest.raises(TooMany):
        find([tmp_path], most=3)
