"""Ending uploads that were never finished, and what crashes left of their chunks."""

import asyncio
import logging
from typing import Protocol

from services.knowledge.upload import UPLOAD_LIVES_S
from services.shared.errors import Unavailable

_log = logging.getLogger("parley.knowledge")
_EVERY_S = 3600.0
_SLACK_S = 3600.0
"""Chunks go later than their uploads: no chunk of a living upload is older than it."""


class OldUploads(Protocol):
    async def drop_older_than(self, age_s: float) -> None: ...


class OldChunks(Protocol):
    async def delete_chunks_older_than(self, age_s: float) -> None: ...


async def sweep(uploads: OldUploads, chunks: OldChunks) -> None:
    """Sweep now and then every hour, until cancelled; replicas may sweep at once."""
    while True:
        try:
            await uploads.drop_older_than(UPLOAD_LIVES_S)
            await chunks.delete_chunks_older_than(UPLOAD_LIVES_S + _SLACK_S)
        except Unavailable as error:
            _log.warning("the sweep waits", extra={"facts": {"reason": error.reason}})
        await asyncio.sleep(_EVERY_S)
