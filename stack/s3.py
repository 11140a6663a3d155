"""S3 by rclone: original documents as plain files below the data directory."""

import asyncio
import functools
import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

import httpx

from stack import programs
from stack.mesh import Mesh
from stack.part import Part

BUCKET = "parley-documents"


def part(mesh: Mesh) -> Part:
    directory = mesh.directory("s3")
    return Part(
        name="s3",
        command=(
            programs.script("rclone"),
            "serve",
            "s3",
            str(directory / "buckets"),
            f"--addr={mesh.address('s3')}",
            # With a write cache an acknowledged object is not on disk for five seconds.
            "--vfs-cache-mode=off",
            "--no-cleanup",
            "--config=",
            f"--cache-dir={directory / 'cache'}",
        ),
        env={
            # In the environment, which only this user reads; a command line is shown to everybody. rclone
            # reads the variable as a CSV row of pairs, so the pair is one quoted field.
            "RCLONE_AUTH_KEY": f'"{mesh.secret("s3-access-key")},{mesh.secret("s3-secret-key")}"',
            "GOMEMLIMIT": "96MiB",
        },
        prepare=functools.partial(_prepare, directory / "buckets" / BUCKET),
        ready=functools.partial(_answer, mesh),
        advice="Read the log lines above, and check that the folder s3/ of the data directory can be written.",
    )


async def _prepare(bucket: Path) -> None:
    await asyncio.to_thread(bucket.mkdir, parents=True, exist_ok=True)


async def _answer(mesh: Mesh) -> None:
    """The bucket is there for whoever holds the keys."""
    path = f"/{BUCKET}"
    headers = _signature(mesh, path, datetime.now(UTC))
    async with httpx.AsyncClient(timeout=3) as client:
        response = await client.head(f"http://{mesh.address('s3')}{path}", headers=headers)
    response.raise_for_status()


def _signature(mesh: Mesh, path: str, now: datetime) -> dict[str, str]:
    """Headers of a HEAD request, after AWS Signature Version 4; any region will do."""
    time, scope = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}/local/s3/aws4_request"
    signed = {"host": mesh.address("s3"), "x-amz-content-sha256": hashlib.sha256().hexdigest(), "x-amz-date": time}
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = f"HEAD\n{path}\n\n{lines}\n{';'.join(signed)}\n{signed['x-amz-content-sha256']}"
    key = f"AWS4{mesh.secret('s3-secret-key')}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    credential = f"AWS4-HMAC-SHA256 Credential={mesh.secret('s3-access-key')}/{scope}, SignedHeaders={';'.join(signed)}"
    return {**signed, "authorization": f"{credential}, Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"}
