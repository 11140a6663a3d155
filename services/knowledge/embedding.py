"""The embedding model on Triton (KServe v2 over gRPC, mutual TLS)."""

import asyncio
from collections.abc import Sequence
from copy import copy
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from services.knowledge.search import Vector
from services.shared.errors import Invalid, Reason, Unavailable
from services.shared.serving.deadline import within
from services.shared.serving.settings import TlsSettings
from services.shared.serving.tls import channel_credentials

_REPLY_TIMEOUT_S = 20.0
_PROBE_TIMEOUT_S = 3.0
_NO_SUCH_MODEL = {f"StatusCode.{code}" for code in ("NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED")}
"""What Triton says of a name that it does not know, and of a model that takes something else than texts."""
CHANNEL_OPTIONS = (
    ("grpc.ssl_target_name_override", "triton"),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_MOST_OF_A_QUESTION = 4
"""Texts in one call. More are passages on their way into the index: one such call of a process at a time, so that the
model's other instance is free for questions, which then wait for no batch."""


class EmbeddingModel:
    """Implements search.Embedding, for texts of at most one batch of the model (32); opened with `async with`."""

    def __init__(self, address: str, model: str, tls: TlsSettings) -> None:
        self._address = address
        self._model = model
        self._tls = tls
        self._client: InferenceServerClient | None = None
        self._batches = asyncio.Lock()

    async def __aenter__(self) -> Self:
        options = list(CHANNEL_OPTIONS)
        self._client = InferenceServerClient(self._address, creds=channel_credentials(self._tls), channel_args=options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client:
            await self._client.close()

    def named(self, model: str) -> "EmbeddingModel":
        """Another model of the same server, over the same connection."""
        other = copy(self)
        other._model = model
        return other

    async def probe(self) -> None:
        """Raise unless Triton answers this service now; over a channel of its own."""
        async with EmbeddingModel(self._address, self._model, self._tls) as model:
            assert model._client
            await model._client.is_server_live(client_timeout=_PROBE_TIMEOUT_S)

    async def dimensions(self, model: str) -> int:
        """Numbers in a vector of this embedding model. Raises Invalid if it is not served, and Unavailable."""
        try:
            [vector] = await self.named(model).embed(["?"])
        except Unavailable as error:
            failure = error.__cause__
            if isinstance(failure, InferenceServerException) and failure.status() in _NO_SUCH_MODEL:
                message = f"Triton serves no embedding model of the name {model}: see models/README.md."
                raise Invalid(Reason.EMBEDDING_MODEL_UNKNOWN, message, embedding_model=model) from error
            raise
        return len(vector)

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """FP32 vectors of length 1. Raises Unavailable."""
        if len(texts) <= _MOST_OF_A_QUESTION:
            return await self._embed(texts)
        async with self._batches:
            return await self._embed(texts)

    async def _embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        assert self._client, "the model is used before it is opened"
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
