"""Named SQL statements: a file of statements, each under a line `-- name: <name>`."""

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load_queries(path: Path) -> dict[str, str]:
    """The statements of the file by name. Text before the first name is the file's own comment."""
    _, *parts = _NAME.split(path.read_text())
    return {name: statement.strip() for name, statement in zip(parts[::2], parts[1::2], strict=True)}
