"""PostgreSQL by itself: a role and a schema for each service and no way to another; root runs it as nobody."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from stack import catalog, postgres, programs
from stack.mesh import SERVICES, Mesh
from stack.process import leftovers


@pytest.fixture(scope="module")
def mesh(tmp_path_factory) -> Iterator[Mesh]:
    with catalog.started(tmp_path_factory.mktemp("mesh"), "postgres") as mesh:
        yield mesh


@pytest.mark.parametrize("service", SERVICES)
async def test_role_works_in_its_own_schema(mesh, service):
    connection = await postgres.connect(mesh, service)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS things (id int); INSERT INTO things VALUES (1)")
        where = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'things'::regclass"
        assert await connection.fetchval(where) == service
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM auth.users",
        "CREATE TABLE auth.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SET ROLE auth",
        "GRANT auth TO session",
        "DROP SCHEMA auth CASCADE",
        "CREATE TEMP TABLE mine ()",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT * FROM pg_authid",
        "ALTER SYSTEM SET fsync = off",
    ],
)
async def test_role_of_session_cannot(mesh, statement):
    owner = await postgres.connect(mesh, "auth")
    await owner.execute("CREATE TABLE IF NOT EXISTS users (password text)")
    await owner.close()
    connection = await postgres.connect(mesh, "session")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("database", ["postgres", "template1"])
async def test_role_cannot_connect_to_another_database(mesh, database):
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await postgres.connect(mesh, "session", database)


async def test_wrong_password_is_refused(mesh):
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn=postgres.dsn(mesh, "session"), password="guess", ssl=False)


async def test_making_the_roles_again_keeps_data_and_takes_a_new_password(mesh):
    mesh.secret_file("postgres-notification").write_text("another\n")
    await postgres.part(mesh).after_ready()
    connection = await postgres.connect(mesh, "notification")
    await connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
def test_postgres_of_root_runs_as_nobody_with_one_capability_at_most(mesh):
    [server] = [p for p in leftovers(mesh.data_dir) if p.cmdline()[0].endswith("postgres") and p.ppid() == os.getpid()]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    assert server.username() == "nobody"
    assert int(status["CapEff"], 16).bit_count() <= 1
    assert int(status["CapBnd"], 16) & ~int(status["CapEff"], 16) == 0 or status["NoNewPrivs"] == "1"
    assert status["NoNewPrivs"] == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
@pytest.mark.parametrize("dropped", ["", "-dac_read_search"], ids=["full root", "root of a container"])
def test_root_starts_postgres_below_folders_that_nobody_cannot_enter(tmp_path, dropped):
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    code = (
        "import sys; from pathlib import Path; from stack import catalog\n"
        "with catalog.started(Path(sys.argv[1]), 'postgres'): print('answered')"
    )
    bounding = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"] if dropped else []
    ran = subprocess.run(
        [*bounding, programs.script("python"), "-c", code, closed / "data"], capture_output=True, text=True
    )
    assert ran.stdout == "answered\n", ran.stderr


def postgres_status(mesh: Mesh) -> dict[str, Any]:
    return json.loads((mesh.data_dir / "status.json").read_text())["parts"]["postgres"]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def test_server_killed_while_its_helpers_stand_still_starts_again(tmp_path):
    async with catalog.running(tmp_path, "postgres") as mesh:
        server = psutil.Process(postgres_status(mesh)["pid"])
        helpers = server.children()
        # Standing still they do not see that they are alone: they would keep the shared memory.
        for helper in helpers:
            helper.send_signal(signal.SIGSTOP)
        try:
            server.kill()
            async with asyncio.timeout(15):
                while (status := postgres_status(mesh))["restarts"] == 0 or status["state"] != "ready":
                    await asyncio.sleep(0.01)
            assert status["restarts"] == 1
            assert helpers
            assert not alive(helpers)
        finally:
            for helper in alive(helpers):
                helper.kill()


def test_its_helpers_are_known_without_it(mesh):
    """A supervisor that is killed takes the server along, but not what stands still."""
    server = psutil.Process(postgres_status(mesh)["pid"])
    assert {server, *server.children()} <= set(leftovers(mesh.data_dir))
