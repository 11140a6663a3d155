"""The models, behind NVIDIA Triton: KServe v2 over gRPC, one stream per answer on one shared channel.

models/README.md describes the inputs and outputs. Ending the stream frees the model's slot.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from opentelemetry import propagate, trace
from tritonclient.grpc import InferInput, service_pb2
from tritonclient.grpc.aio import InferenceServerClient

from services.chat.prompt import Prompt
from services.chat.speech import Piece
from services.chat.turn import RETRY_AFTER_S, FinishReason, Usage
from services.shared.errors import Invalid, Reason, Refusal, Unavailable
from services.shared.serving.settings import TlsSettings
from services.shared.serving.tls import channel_credentials

_PROMPT_TOO_LONG = "prompt_too_long"  # how a model's error text begins
_PROBE_TIMEOUT_S = 3.0
_MARGIN_S = 1.0  # the turn's own deadline comes first, and says so
_tracer = trace.get_tracer("parley.chat")


class TritonModel:
    """Implements speech.Model; opened with `async with`."""

    def __init__(self, address: str, tls: TlsSettings) -> None:
        self._address = address
        self._tls = tls
        self._client: InferenceServerClient | None = None

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.ssl_target_name_override", "triton"),
            # A turn that waits for Triton goes on as soon as it is back.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.max_receive_message_length", 4 * 1024 * 1024),
        ]
        self._client = InferenceServerClient(self._address, creds=channel_credentials(self._tls), channel_args=options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client:
            await self._client.close()

    async def probe(self) -> None:
        """Raise unless Triton answers this service now; over a channel of its own."""
        async with TritonModel(self._address, self._tls) as model:
            assert model._client
            await model._client.is_server_live(client_timeout=_PROBE_TIMEOUT_S)

    async def speak(
        self, model: str, prompt: Prompt, *, temperature: float | None, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        """See speech.Model."""
        assert self._client, "the model is used before it is opened"
        span = _tracer.start_span("ModelStreamInfer", attributes={"model": model})
        headers: dict[str, str] = {}
        propagate.inject(headers, trace.set_span_in_context(span))
        request = {"model_name": model, "inputs": _inputs(prompt, temperature)}
        stream = self._client.stream_infer(_once(request), stream_timeout=limit_s + _MARGIN_S, headers=headers)
        try:
            async for result, error in stream:
                if error:
                    raise _refusal(error.message())
                yield _piece(result.get_response())
        except grpc.aio.AioRpcError as error:
            raise _refusal(error.details() or "") from error
        finally:
            stream.cancel()
            span.end()


async def _once(request: Mapping[str, object]) -> AsyncIterator[Mapping[str, object]]:
    yield request


def _inputs(prompt: Prompt, temperature: float | None) -> list[InferInput]:
    messages = json.dumps(prompt.messages, ensure_ascii=False).encode()
    inputs = [
        _input("messages", "BYTES", np.array([messages], dtype=np.object_)),
        _input("max_tokens", "INT32", np.array([prompt.max_output_tokens], dtype=np.int32)),
    ]
    if temperature is not None:
        inputs.append(_input("temperature", "FP32", np.array([temperature], dtype=np.float32)))
    return inputs


def _input(name: str, datatype: str, values: np.ndarray) -> InferInput:
    tensor = InferInput(name, [1], datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def _piece(response: service_pb2.ModelInferResponse) -> Piece:
    """Reads the tensors where they lie: numpy would cost more than all the rest of a token's way through here."""
    raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
    reason = _string(raw["finish_reason"])
    return Piece(
        _string(raw["text"]),
        Usage(_int32(raw["prompt_tokens"]), _int32(raw["completion_tokens"])),
        FinishReason(reason) if reason else None,
    )


def _string(data: bytes) -> str:
    return data[4:].decode()  # after its length, four bytes


def _int32(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _refusal(message: str) -> Refusal:
    if _PROMPT_TOO_LONG in message:
        return Invalid(Reason.PROMPT_TOO_LONG, "The question does not fit the model's context: shorten it.")
    return Unavailable(
        Reason.MODEL_UNAVAILABLE, "The model can't answer just now; the question is saved.", retry_after_s=RETRY_AFTER_S
    )
