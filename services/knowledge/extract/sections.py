"""What every format reader gives: blocks below their headings."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.knowledge.passages import Block


@dataclass(frozen=True)
class Read:
    """What was read. `pages` is 0 where the format has none; `blocks` can be run through once."""

    content_type: str
    blocks: Iterable[Block]
    pages: int = 0


class Sections:
    """The headings above the place that is being read. A heading with nothing below it becomes text itself."""

    def __init__(self) -> None:
        self._path: list[tuple[int, str]] = []
        self._bare_page: int | None = None
        self._is_bare = False

    def heading(self, level: int, title: str, page: int | None = None) -> Iterator[Block]:
        """A heading; a smaller level is further out."""
        if not title.strip():
            return
        if self._is_bare and level <= self._path[-1][0]:
            yield from self.end()
        self._path = [entry for entry in self._path if entry[0] < level]
        self._path.append((level, title))
        self._is_bare, self._bare_page = True, page

    def leave(self, level: int) -> Iterator[Block]:
        """What follows stands below none of the headings of this level and further in."""
        if self._is_bare and self._path[-1][0] >= level:
            yield from self.end()
        self._path = [entry for entry in self._path if entry[0] < level]

    def text(self, text: str, page: int | None = None) -> Iterator[Block]:
        """A paragraph below the headings so far."""
        if text.strip():
            self._is_bare = False
            yield Block(text, page, self._titles())

    def end(self) -> Iterator[Block]:
        """The last heading, if nothing stands below it."""
        if self._is_bare:
            self._is_bare = False
            yield Block(self._path[-1][1], self._bare_page, self._titles()[:-1])

    def _titles(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._path)
