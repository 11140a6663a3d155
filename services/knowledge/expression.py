"""The filter expressions of Milvus: the only place where values get into one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.knowledge.filters import Filters

EVERYBODY = ""
"""The reader of what the whole organisation sees."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_LATEST = 2**63 - 1
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def where(**values: str | Sequence[str] | range) -> str:
    """The filter for rows whose fields have these values: one, one of several, or a number in a range."""
    return " and ".join(_condition(field, value) for field, value in values.items())


def _condition(field: str, value: str | Sequence[str] | range) -> str:
    if isinstance(value, range):
        return f"{field} >= {value.start:d} and {field} < {value.stop:d}"
    if isinstance(value, str):
        return f"{field} == {_literal(value)}"
    return f"{field} in [{', '.join(map(_literal, value))}]"


def _literal(value: str) -> str:
    return f'"{value.translate(_ESCAPES)}"'


def wanted(tenant_id: UUID, user_id: UUID | None, filters: Filters) -> str:
    """The filter for what this member sees and asks for; without a member, for what everybody sees."""
    values: dict[str, str | Sequence[str] | range] = {"tenant_id": str(tenant_id), "reader": EVERYBODY}
    if user_id:
        values["reader"] = (EVERYBODY, str(user_id))
    if filters.collections:
        values["collection"] = filters.collections
    if filters.content_types:
        values["content_type"] = filters.content_types
    if filters.created_after or filters.created_before:
        # No document is older than 1970, and the grammar of expressions has no negative number.
        begin = max(0, microseconds(filters.created_after)) if filters.created_after else 0
        end = max(0, microseconds(filters.created_before)) if filters.created_before else _LATEST
        values["create_time"] = range(begin, end)
    return where(**values)


def microseconds(time: datetime) -> int:
    """Since 1970: as exact as the record."""
    return (time - _EPOCH) // timedelta(microseconds=1)
