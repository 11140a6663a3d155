"""The embedding model on Triton (KServe v2 over gRPC, mutual TLS)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import grpc
import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from services.knowledge.search import Vector
from services.knowledge.settings import Settings
from services.shared.errors import Reason, Unavailable
from services.shared.serving.deadline import within
from services.shared.serving.tls import channel_credentials

_REPLY_TIMEOUT_S = 20.0
_OPTIONS = (
    ("grpc.ssl_target_name_override", "triton"),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class EmbeddingModel:
    """The port Embedding, for texts of at most one batch of the model (32)."""

    def __init__(self, settings: Settings) -> None:
        """Needs a running event loop."""
        credentials = channel_credentials(settings)
        options = _OPTIONS if credentials else _OPTIONS[1:]
        self._client = InferenceServerClient(settings.triton_address, creds=credentials, channel_args=list(options))
        self._model = settings.embedding_model

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Keeps the channel while entered."""
        try:
            yield self
        finally:
            await self._client.close()

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """FP32 vectors of length 1. Raises Unavailable."""
        values = np.array([[text.encode()] for text in texts], dtype=object)
        request = InferInput("text", list(values.shape), "BYTES")
        request.set_data_from_numpy(values)
        limit_s = within(_REPLY_TIMEOUT_S)
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._client.infer(self._model, [request], client_timeout=limit_s)
        except (InferenceServerException, grpc.RpcError, TimeoutError) as error:
            message = "Search can't answer just now: the embedding model can't be reached. Retry."
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, message) from error
        return answer.as_numpy("embedding").tolist()
