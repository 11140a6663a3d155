"""What the documents point at exists, and every service has its page."""

import re
from pathlib import Path

import pytest

from stack.mesh import PROJECT, SERVICES

IGNORED = {".venv", ".venv-models", ".parley", "node_modules", "gen"}
PAGES = sorted(path for path in PROJECT.rglob("*.md") if not IGNORED & set(path.relative_to(PROJECT).parts))
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} points at {target}"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_page_that_the_readme_points_at(service: str) -> None:
    assert (PROJECT / "services" / service / "README.md").exists()
    assert f"services/{service}/README.md" in (PROJECT / "README.md").read_text()


def test_decisions_are_short() -> None:
    """Figures that a decision rests on stand in a table beside it."""
    for path in (PROJECT / "docs" / "decisions").glob("*.md"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("|")]
        assert len(lines) <= 14, path.name
