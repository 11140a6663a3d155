"""PostgreSQL: the record. One database, one role and schema per service, no way from one to another.

It refuses to run as root, so root starts it as `nobody`. That user may be unable to enter the folders above
the program or the data, a clone below a closed home for example; then it gets the one capability that reads
through them, and nothing else.
"""

import functools
import os
import pwd
import shutil
import signal
from pathlib import Path

import asyncpg

from stack import programs
from stack.mesh import SERVICES, Mesh, write_atomically
from stack.part import Part, run_to_end

PROGRAMS = programs.postgres()
DATABASE = "parley"
OPERATOR = "operator"
"""The superuser. Only the supervisor and the person at this machine hold its password."""

SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '64MB'
synchronous_commit = on
fsync = {fsync}
recovery_init_sync_method = 'syncfs'
max_wal_size = '512MB'
min_wal_size = '80MB'
max_parallel_workers_per_gather = 1
idle_in_transaction_session_timeout = '60s'
client_connection_check_interval = '5s'
log_line_prefix = '%m [%p] %q%u '
log_min_duration_statement = '1s'
"""
HOST_ACCESS = f"""\
host {DATABASE} {",".join(SERVICES)} 127.0.0.1/32 scram-sha-256
host all {OPERATOR} 127.0.0.1/32 scram-sha-256
"""


def part(mesh: Mesh, *, durable: bool = True) -> Part:
    """`durable=False` leaves fsync out; only for tests that never kill the machine."""
    data = mesh.directory("postgres") / "data"
    return Part(
        name="postgres",
        command=(*_launcher(mesh), str(PROGRAMS / "postgres"), "-D", str(data)),
        prepare=functools.partial(_prepare, mesh, data, durable),
        ready=functools.partial(_answer, mesh),
        after_ready=functools.partial(_make_roles, mesh),
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes everything down
        stop_timeout_s=20,
        advice="Read the log lines above. After 'permission denied', give --data-dir a folder of your own; as root, "
        "util-linux's setpriv must be installed. After 'could not bind', run the command again.",
    )


def dsn(mesh: Mesh, role: str) -> str:
    return f"postgresql://{role}@{mesh.address('postgres')}/{DATABASE}"


async def connect(mesh: Mesh, role: str = OPERATOR, database: str = DATABASE) -> asyncpg.Connection:
    """A connection of the given role. Raises OSError, TimeoutError or asyncpg.PostgresError."""
    return await asyncpg.connect(
        host="127.0.0.1",
        port=mesh.ports["postgres"],
        user=role,
        password=mesh.secret(f"postgres-{role}"),
        database=database,
        ssl=False,
        timeout=5,
    )


def _launcher(mesh: Mesh) -> tuple[str, ...]:
    """What has to stand before a PostgreSQL program. Empty for an ordinary user."""
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam("nobody")
    # Changing the user clears the death signal that the supervisor asked for.
    launcher: tuple[str, ...] = (
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        "--no-new-privs",
    )
    capability = _missing_capability(PROGRAMS / "postgres", mesh.directory("postgres"))
    if capability:
        # no_setuid_fixup: PostgreSQL asks access(2) for its own program, which else ignores the capabilities
        # of non-root users.
        granted = f"-all,+{capability}"
        launcher += ("--securebits=+no_setuid_fixup", f"--inh-caps={granted}", f"--ambient-caps={granted}")
        launcher += (f"--bounding-set={granted}",)
    return (*launcher, "--pdeathsig", "KILL", "--")


def _missing_capability(*paths: Path) -> str:
    """The least capability with which `nobody` gets to these paths; containers often keep only the second one."""
    if all(parent.stat().st_mode & 0o001 for path in paths for parent in path.parents):
        return ""
    bounding = int(_own_status("CapBnd"), 16)
    return "dac_read_search" if bounding >> 2 & 1 else "dac_override"


def _own_status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


async def _prepare(mesh: Mesh, data: Path, durable: bool) -> None:
    if os.geteuid() == 0:
        shutil.chown(data.parent, "nobody")
    if not (data / "PG_VERSION").exists():
        await _create_cluster(mesh, data, durable)
    settings = SETTINGS.format(port=mesh.ports["postgres"], fsync="on" if durable else "off")
    for name, text in (("postgresql.auto.conf", settings), ("pg_hba.conf", HOST_ACCESS)):
        write_atomically(data / name, text, mode=0o600)
        if os.geteuid() == 0:
            shutil.chown(data / name, "nobody")
    # Another program may have taken over the pid of a server that was killed; the supervisor knows that none
    # is running.
    (data / "postmaster.pid").unlink(missing_ok=True)


async def _create_cluster(mesh: Mesh, data: Path, durable: bool) -> None:
    # initdb refuses a folder with files in it, so what an interrupted one left goes; a cluster only counts
    # once it is complete.
    draft = data.with_name("data.new")
    shutil.rmtree(draft, ignore_errors=True)
    # The password comes by a file that only the running user reads, never by the command line.
    password = data.with_name("password")
    write_atomically(password, mesh.secret(f"postgres-{OPERATOR}"), mode=0o600)
    if os.geteuid() == 0:
        shutil.chown(password, "nobody")
    options = (
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-instructions",
        "--data-checksums",
    )
    try:
        await run_to_end(
            *_launcher(mesh),
            str(PROGRAMS / "initdb"),
            f"--pgdata={draft}",
            f"--username={OPERATOR}",
            f"--pwfile={password}",
            *options,
            *(() if durable else ("--no-sync",)),
        )
    finally:
        password.unlink()
    draft.rename(data)


async def _answer(mesh: Mesh) -> None:
    connection = await connect(mesh, database="postgres")
    try:
        await connection.fetchval("SELECT 1")
    finally:
        await connection.close()


async def _make_roles(mesh: Mesh) -> None:
    connection = await connect(mesh, database="postgres")
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()
    connection = await connect(mesh)
    try:
        async with connection.transaction():
            await connection.execute(
                f"REVOKE ALL ON DATABASE {DATABASE}, postgres, template1 FROM PUBLIC;"
                "REVOKE ALL ON SCHEMA public FROM PUBLIC"
            )
            roles = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
            for service in SERVICES:
                await connection.execute(
                    _role_statements(service, mesh.secret(f"postgres-{service}"), service in roles)
                )
    finally:
        await connection.close()


def _role_statements(role: str, password: str, exists: bool) -> str:
    # Passwords are URL-safe base64, so they need no quoting inside a literal.
    return f"""
        {"ALTER" if exists else "CREATE"} ROLE "{role}" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT
            PASSWORD '{password}';
        ALTER ROLE "{role}" SET search_path = "{role}";
        GRANT CONNECT ON DATABASE {DATABASE} TO "{role}";
        CREATE SCHEMA IF NOT EXISTS "{role}" AUTHORIZATION "{role}";
    """
