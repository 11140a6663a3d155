"""Jupyter notebooks (IPYNB): the cells in order, Markdown as such, code and what it printed as they stand."""

import json
import re
from collections.abc import Iterator
from typing import Any

from services.knowledge.extract import markdown
from services.knowledge.extract.sections import Read

CONTENT_TYPE = "application/x-ipynb+json"
_FENCES = re.compile(r"`{3,}")
_SHOWN = ("text/markdown", "text/plain")


def find(text: str) -> dict[str, Any] | None:
    """The notebook that the text is; None if it is something else."""
    if not text.lstrip().startswith("{") or '"cells"' not in text or '"nbformat"' not in text:
        return None
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return notebook if isinstance(notebook, dict) and isinstance(notebook.get("cells"), list) else None


def read(notebook: dict[str, Any]) -> Read:
    """The cells of a notebook."""
    cells = (cell for cell in notebook["cells"] if isinstance(cell, dict))
    text = "\n\n".join(part for cell in cells for part in _cell(cell))
    return Read(CONTENT_TYPE, markdown.read(text).blocks)


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = _text(cell.get("source"))
    if cell.get("cell_type") == "markdown":
        yield source
        return
    yield _fenced(source)
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        if isinstance(output, dict):
            yield _fenced(_output(output))


def _output(output: dict[str, Any]) -> str:
    """What people see of an output; pictures and pages say nothing that the text beside them does not."""
    if (printed := _text(output.get("text"))) or not isinstance(data := output.get("data"), dict):
        return printed or _text(output.get("evalue"))
    return next((shown for kind in _SHOWN if (shown := _text(data.get(kind)))), "")


def _text(lines: object) -> str:
    if isinstance(lines, list):
        return "".join(line for line in lines if isinstance(line, str))
    return lines if isinstance(lines, str) else ""


def _fenced(text: str) -> str:
    longest = max((len(fence) for fence in _FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text}\n{fence}" if text.strip() else ""
