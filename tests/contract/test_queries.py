"""Every statement that touches a tenant's rows is bound to the tenant."""

import re
from pathlib import Path

import pytest

from services.shared.postgres.queries import load_queries
from stack.mesh import PROJECT

FILES = sorted((PROJECT / "services").glob("*/queries.sql"))
WITHOUT_TENANT = {
    "auth.find_credentials": "a sign-in names an address; the tenant is what it finds out",
    "chat.take_over": "a replica goes on with the turns of a dead one, whoever asked; nobody sees them",
    "chat.wishes": "a replica asks for its own turns",
    "knowledge.faqs_without_vectors": "the service gives vectors to what lacks them; nobody sees them",
    "knowledge.drop_uploads_older_than": "the service sweeps its own leftovers; nobody sees them",
}
_READ = re.compile(r"\b(?:FROM|JOIN|UPDATE)\s+(?:ONLY\s+)?([a-z_]+)", re.IGNORECASE)
_WRITTEN = re.compile(r"\bINTO\s+([a-z_]+)\s*\(([^)]*)\)", re.IGNORECASE)
_BOUND = re.compile(r"\btenant_id\s*=|USING\s*\(\s*tenant_id\b|\(\s*tenant_id\s*,[^)]*\)\s*(?:=|IN|<|>)", re.IGNORECASE)


WITHOUT_MEMBER = {
    "add_passages": "indexing, which nobody sees",
    "announce_content": "indexing, which nobody sees",
    "begin_indexing": "indexing, which nobody sees",
    "complete_indexing": "indexing, which nobody sees",
    "fail_indexing": "indexing, which nobody sees",
    "find_document": "indexing, which nobody sees",
}
"""The statements of knowledge that read documents or passages whoever asked."""
_VISIBLE = re.compile(r"visibility = 'organisation' OR (?:documents\.)?user_id = \$\d")
_SHARED = re.compile(r"AND documents\.visibility = 'organisation'\s+WHERE\b")
_OWN = re.compile(r"\bWHERE tenant_id = \$1 AND user_id = \$2 AND ")


def tenant_tables(folder: Path) -> set[str]:
    sql = "\n".join(path.read_text() for path in sorted(folder.glob("migrations/*.sql")))
    tables = re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)\n\)", sql, re.DOTALL)
    return {name for name, body in tables if re.search(r"^\s*tenant_id\b", body, re.MULTILINE)} | {"outbox"}


def faults(sql: str, tables: set[str]) -> list[str]:
    """What lets a statement touch rows of any tenant."""
    sql = re.sub(r"--.*", "", sql)
    found = [f"writes {table} without tenant_id" for table, columns in _WRITTEN.findall(sql)
             if table in tables and "tenant_id" not in columns]  # fmt: skip
    read = set(_READ.findall(sql)) & tables
    return found + ([f"reads {sorted(read)} of any tenant"] if read and not _BOUND.search(sql) else [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_statement_is_bound_to_a_tenant(path: Path) -> None:
    tables = tenant_tables(path.parent)
    for name, statement in load_queries(path).items():
        if f"{path.parent.name}.{name}" not in WITHOUT_TENANT:
            assert not faults(statement, tables), f"{path.parent.name}.{name}"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT tenant_id, id FROM messages WHERE id = $1",
        "UPDATE messages SET text = $2 WHERE id = $1",
        "DELETE FROM messages WHERE id = $1",
        "INSERT INTO messages (id, text) VALUES ($1, $2)",
    ],
)
def test_a_statement_that_forgets_the_tenant_is_found(statement: str) -> None:
    assert faults(statement, {"messages"})


def test_every_statement_that_answers_a_member_leaves_out_private_documents_of_others() -> None:
    for name, statement in load_queries(PROJECT / "services" / "knowledge" / "queries.sql").items():
        if {"documents", "passages"} & set(_READ.findall(statement)) and name not in WITHOUT_MEMBER:
            assert any(rule.search(statement) for rule in (_VISIBLE, _SHARED, _OWN)), name


def test_every_exception_still_exists() -> None:
    known = {f"{path.parent.name}.{name}" for path in FILES for name in load_queries(path)}
    assert WITHOUT_TENANT.keys() | {f"knowledge.{name}" for name in WITHOUT_MEMBER} <= known
