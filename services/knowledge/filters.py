"""What a search is narrowed to. The index and the record are asked for the same, so that neither has to be trusted."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Filters:
    """Which documents may be found; what is empty or None filters nothing.

    A document is of one of the collections ("" is none) and of one of the content types, and came at `created_after` or
    later and before `created_before`.
    """

    collections: tuple[str, ...] = ()
    content_types: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None


EVERYTHING = Filters()
