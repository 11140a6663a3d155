"""`parley reindex`: a new index beside the one that is searched, until it takes its place.

It calls knowledge past the edge, with the certificate of the operator: who can read the data directory may.
"""

import asyncio
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import grpc
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from parley.knowledge.v1.index_service_pb2 import (
    CancelRebuildRequest,
    CheckIndexRequest,
    CheckIndexResponse,
    GetIndexRequest,
    Index,
    RebuildIndexRequest,
)
from parley.knowledge.v1.index_service_pb2_grpc import IndexServiceStub
from services.shared.serving.status import refusal_in
from stack.mesh import read_object

T = TypeVar("T")
_CALL_TIMEOUT_S = 15.0
_RETRY_S = 1.0
_GIVE_UP_S = 30.0
"""Without an answer from any replica."""
_GOES_ON = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
"""The replica that was followed stops, or the stream has lived as long as one may: the rebuild is not ended by that."""


class Refused(Exception):
    """It can't be done; the message says what to do."""


def rebuild(data_dir: Path, model: str, extract: bool, console: Console) -> None:
    """Build an index and follow it to its end. Raises Refused."""
    try:
        built = asyncio.run(_rebuild(data_dir, model, extract, console))
    except KeyboardInterrupt:
        console.print("The rebuild goes on: `parley reindex --status` shows it, `--cancel` ends it.")
        raise
    console.print(
        f"The new index is searched: {built.passages_held:,} passages of {built.documents_held:,} documents, "
        f"model {built.embedding_model} ({built.dimensions} dimensions).",
        highlight=False,
    )


def cancel(data_dir: Path, console: Console) -> None:
    """End the rebuild that is running. Raises Refused."""

    async def call() -> None:
        async with _channel(data_dir) as channel:
            await IndexServiceStub(channel).CancelRebuild(CancelRebuildRequest(), timeout=_CALL_TIMEOUT_S)

    _answered(call())
    console.print("No rebuild is running; the index that is searched stays.")


def check(data_dir: Path, console: Console) -> None:
    """Find and mend what does not agree with the record. Raises Refused."""

    async def call() -> CheckIndexResponse:
        async with _channel(data_dir) as channel:
            [mended] = [answer async for answer in IndexServiceStub(channel).CheckIndex(CheckIndexRequest())]
        return mended

    mended = _answered(call())
    console.print(
        f"Removed: {mended.rows:,} rows of the index, {mended.objects:,} objects, {mended.passages:,} passages without "
        f"a document. Brought in: {mended.documents:,} documents. Recounted: {mended.organisations:,} organisations.",
        highlight=False,
        soft_wrap=True,
    )


def status(data_dir: Path, console: Console) -> None:
    """Show what there is. Raises Refused."""

    async def call() -> list[Index]:
        async with _channel(data_dir) as channel:
            answer = await IndexServiceStub(channel).GetIndex(GetIndexRequest(), timeout=_CALL_TIMEOUT_S)
        return list(answer.indexes)

    for index in _answered(call()):
        console.print(
            f"{'searched' if index.active else 'building'}: {index.passages_held:,} of {index.passages:,} passages, "
            f"{index.documents_held:,} of {index.documents:,} documents, "
            f"model {index.embedding_model} ({index.dimensions} dimensions)",
            highlight=False,
        )


def _answered(call: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(call)
    except grpc.aio.AioRpcError as error:
        raise Refused(_why(error)) from error


async def _rebuild(data_dir: Path, model: str, extract: bool, console: Console) -> Index:
    request = RebuildIndexRequest(request_id=str(uuid.uuid4()), embedding_model=model, from_originals=extract)
    columns = (
        TextColumn("indexing"),
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,} passages"),
    )
    loop = asyncio.get_running_loop()
    answered_s = loop.time()
    async with _channel(data_dir) as channel:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=0)
            while True:
                try:
                    async for answer in IndexServiceStub(channel).RebuildIndex(request):
                        answered_s = loop.time()
                        progress.update(bar, completed=answer.index.passages_held, total=answer.index.passages)
                        if answer.index.active:
                            return answer.index
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _GOES_ON or loop.time() - answered_s > _GIVE_UP_S:
                        raise Refused(_why(error)) from error
                await asyncio.sleep(_RETRY_S)


def _channel(data_dir: Path) -> grpc.aio.Channel:
    replicas = read_object(data_dir / "endpoints.json").get("parts", {}).get("knowledge", [])
    tls = data_dir / "tls"
    if not replicas or not (tls / "operator-key.pem").exists():
        raise Refused(f"No mesh has run in {data_dir}: `parley up` starts one, --data-dir names another folder")
    credentials = grpc.ssl_channel_credentials(
        *(tls.joinpath(name).read_bytes() for name in ("ca.pem", "operator-key.pem", "operator.pem"))
    )
    options = [("grpc.ssl_target_name_override", "knowledge")]
    return grpc.aio.secure_channel("ipv4:" + ",".join(replicas), credentials, options)


def _why(error: grpc.aio.AioRpcError) -> str:
    refusal = refusal_in(error)
    if refusal:
        return f"{refusal.message.removesuffix('.')} ({refusal.reason})"
    return "knowledge does not answer: `parley status` shows whether the mesh is up"
