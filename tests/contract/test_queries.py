"""Every statement that touches a tenant's rows names the tenant."""

import re
from pathlib import Path

import pytest

from services.shared.postgres.queries import load_queries
from stack.mesh import PROJECT

FILES = sorted((PROJECT / "services").glob("*/queries.sql"))
# Statements that run before the tenant is known, or for the service itself; each with its reason.
WITHOUT_TENANT: dict[str, str] = {}
_TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+(?:ONLY\s+)?([a-z_]+)", re.IGNORECASE)


def tenant_tables(folder: Path) -> set[str]:
    sql = "\n".join(path.read_text() for path in sorted(folder.glob("migrations/*.sql")))
    tables = re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)\n\)", sql, re.DOTALL)
    return {name for name, body in tables if re.search(r"^\s*tenant_id\b", body, re.MULTILINE)} | {"outbox"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_statement_names_the_tenant(path: Path) -> None:
    tables = tenant_tables(path.parent)
    for name, statement in load_queries(path).items():
        if f"{path.parent.name}.{name}" in WITHOUT_TENANT:
            continue
        sql = re.sub(r"--.*", "", statement)
        touched = set(_TABLE.findall(sql)) & tables
        assert not touched or "tenant_id" in sql, f"{path.parent.name}.{name} touches {touched} of any tenant"


def test_every_exception_still_exists() -> None:
    known = {f"{path.parent.name}.{name}" for path in FILES for name in load_queries(path)}
    assert WITHOUT_TENANT.keys() <= known
