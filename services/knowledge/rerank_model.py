"""The rerank model on Triton (KServe v2 over gRPC, mutual TLS): `query` and `text` in, `score` out."""

import asyncio
import math
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from services.knowledge.embedding import CHANNEL_OPTIONS
from services.shared.errors import Reason, Unavailable
from services.shared.serving.deadline import within
from services.shared.serving.settings import TlsSettings
from services.shared.serving.tls import channel_credentials


class RerankModel:
    """Implements reranking.Scorer; opened with `async with`."""

    def __init__(self, address: str, model: str, tls: TlsSettings, timeout_s: float) -> None:
        self._address = address
        self._model = model
        self._tls = tls
        self._timeout_s = timeout_s
        self._client: InferenceServerClient | None = None

    async def __aenter__(self) -> Self:
        self._client = InferenceServerClient(
            self._address, creds=channel_credentials(self._tls), channel_args=list(CHANNEL_OPTIONS)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client:
            await self._client.close()

    async def probe(self) -> None:
        """Raise unless Triton has the model."""
        assert self._client, "the model is used before it is opened"
        if not await self._client.is_model_ready(self._model, client_timeout=self._timeout_s):
            raise RuntimeError(f"Triton has no model {self._model}")

    async def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One number for each text. Raises Unavailable."""
        assert self._client, "the model is used before it is opened"
        inputs = [_input("query", [query] * len(texts)), _input("text", texts)]
        limit_s = within(self._timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._client.infer(self._model, inputs, client_timeout=limit_s)
        except (InferenceServerException, grpc.RpcError, TimeoutError) as error:
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "The rerank model can't be reached.") from error
        scores = answer.as_numpy("score")
        if scores is None or scores.size != len(texts) or not all(map(math.isfinite, scores.flat)):
            raise Unavailable(Reason.SEARCH_UNAVAILABLE, "The rerank model gives no score for each text.")
        return [float(score) for score in scores.flat]


def _input(name: str, texts: Sequence[str]) -> InferInput:
    values = np.array([[text.encode()] for text in texts], dtype=object)
    request = InferInput(name, list(values.shape), "BYTES")
    request.set_data_from_numpy(values)
    return request
