"""Valkey: turn logs. It holds only what may be lost or built again; still, a restart keeps all but the last
second.
"""

import functools
import hashlib

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stack import programs
from stack.mesh import Mesh, write_atomically
from stack.part import Part

# A full store refuses new entries instead of evicting: a log without its beginning can't be replayed to a reader.
SETTINGS = """\
bind 127.0.0.1
port {port}
protected-mode yes
databases 1
set-proc-title no
dir {directory}
aclfile {directory}/users.acl
appendonly yes
appendfsync everysec
save ""
maxmemory 256mb
maxmemory-policy noeviction
io-threads 1
"""
# Named families are left out where they reach beyond the keys of the pattern (KEYS, SCAN, FLUSHALL, CONFIG,
# SCRIPT FLUSH).
CHAT_COMMANDS = (
    "+@connection +@string +@hash +@set +@sortedset +@stream +@transaction "
    "+del +unlink +exists +type +expire +pexpire +expireat +pexpireat +ttl +pttl +persist "
    "+eval +evalsha +script|load +script|exists +wait "
    "-@admin -@dangerous +info"  # its run id tells whether logs may have lost their ends
)


def part(mesh: Mesh) -> Part:
    directory = mesh.directory("valkey")
    return Part(
        name="valkey",
        command=(programs.valkey(), str(directory / "valkey.conf")),
        prepare=functools.partial(_prepare, mesh),
        ready=functools.partial(_answer, mesh),
        stop_timeout_s=20,
        advice="Read the log lines above. When the append-only file is damaged, stop the mesh and move the folder "
        "valkey/ away: running turns are lost, saved conversations are not.",
    )


def connect(mesh: Mesh, user: str) -> redis.Redis:
    return redis.Redis(
        host="127.0.0.1",
        port=mesh.ports["valkey"],
        username=user,
        password=mesh.secret(f"valkey-{user}"),
        retry=Retry(NoBackoff(), retries=0),
        socket_timeout=5,
    )


async def _prepare(mesh: Mesh) -> None:
    directory = mesh.directory("valkey")
    users = [
        "user default off resetkeys resetchannels -@all",
        f"user chat on #{_digest(mesh, 'chat')} resetkeys resetchannels ~turn:* -@all {CHAT_COMMANDS}",
        f"user operator on #{_digest(mesh, 'operator')} ~* &* +@all",
    ]
    write_atomically(directory / "users.acl", "\n".join(users) + "\n", mode=0o600)
    text = SETTINGS.format(port=mesh.ports["valkey"], directory=directory)
    write_atomically(directory / "valkey.conf", text, mode=0o600)


def _digest(mesh: Mesh, user: str) -> str:
    return hashlib.sha256(mesh.secret(f"valkey-{user}").encode()).hexdigest()


async def _answer(mesh: Mesh) -> None:
    async with connect(mesh, "operator") as client:
        await client.ping()
