"""The models, behind NVIDIA Triton: KServe v2 over gRPC, one stream per answer on one shared channel.

models/README.md describes the inputs and outputs. Ending the stream frees the model's slot.
"""

import json
import struct
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

import grpc
from opentelemetry import propagate, trace
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, ServerLiveRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from services.chat.prompt import Prompt
from services.chat.speech import Piece
from services.chat.turn import RETRY_AFTER_S, FinishReason, Usage
from services.shared.errors import Invalid, Reason, Refusal, Unavailable
from services.shared.serving.settings import TlsSettings
from services.shared.serving.tls import channel_credentials

_PROMPT_TOO_LONG = "prompt_too_long"  # how a model's error text begins
_PROBE_TIMEOUT_S = 3.0
_MARGIN_S = 0.02  # a call has less time than its caller
_tracer = trace.get_tracer("parley.chat")


class TritonModel:
    """Implements speech.Model; opened with `async with`."""

    def __init__(self, address: str, tls: TlsSettings) -> None:
        self._address = address
        self._tls = tls
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.ssl_target_name_override", "triton"),
            # A turn that waits for Triton goes on as soon as it is back.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        credentials = channel_credentials(self._tls)
        if credentials:
            self._channel = grpc.aio.secure_channel(self._address, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(self._address, options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._channel:
            await self._channel.close()

    async def probe(self) -> None:
        """Raise unless Triton answers this service now; over a channel of its own."""
        async with TritonModel(self._address, self._tls) as model:
            assert model._channel
            await GRPCInferenceServiceStub(model._channel).ServerLive(ServerLiveRequest(), timeout=_PROBE_TIMEOUT_S)

    async def speak(
        self, model: str, prompt: Prompt, *, temperature: float | None, interval_s: float, limit_s: float
    ) -> AsyncGenerator[Piece, None]:
        """See speech.Model."""
        assert self._channel, "the model is used before it is opened"
        span = _tracer.start_span("ModelStreamInfer", attributes={"model": model})
        headers: dict[str, str] = {}
        propagate.inject(headers, trace.set_span_in_context(span))
        stream = GRPCInferenceServiceStub(self._channel).ModelStreamInfer(
            timeout=max(0.0, limit_s - _MARGIN_S), metadata=tuple(headers.items())
        )
        usage = Usage()
        try:
            await stream.write(_request(model, prompt, temperature, interval_s))
            await stream.done_writing()
            while (answer := await stream.read()) is not grpc.aio.EOF:
                if answer.error_message:
                    raise _refusal(answer.error_message)
                piece = _piece(answer.infer_response, usage)
                usage = piece.usage
                yield piece
        except grpc.aio.AioRpcError as error:
            raise _refusal(error.details() or "") from error
        finally:
            stream.cancel()
            span.end()


def _request(model: str, prompt: Prompt, temperature: float | None, interval_s: float) -> ModelInferRequest:
    request = ModelInferRequest(model_name=model)
    messages = json.dumps(prompt.messages, ensure_ascii=False).encode()
    _add(request, "messages", "BYTES", struct.pack("<I", len(messages)) + messages)
    _add(request, "max_tokens", "INT32", struct.pack("<i", prompt.max_output_tokens))
    if temperature is not None:
        _add(request, "temperature", "FP32", struct.pack("<f", temperature))
    if interval_s:
        _add(request, "interval_ms", "INT32", struct.pack("<i", round(interval_s * 1000)))
    return request


def _add(request: ModelInferRequest, name: str, datatype: str, raw: bytes) -> None:
    """One input of one value, as it lies on the wire."""
    request.inputs.add(name=name, datatype=datatype, shape=[1])
    request.raw_input_contents.append(raw)


def _piece(response: ModelInferResponse, before: Usage) -> Piece:
    """What a response leaves out has not changed.

    Reads the tensors where they lie: numpy would cost more than all the rest of a token's way through here.
    """
    raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
    reason = _string(raw.get("finish_reason", b""))
    return Piece(
        _string(raw.get("text", b"")),
        Usage(
            _int32(raw["prompt_tokens"]) if "prompt_tokens" in raw else before.prompt_tokens,
            _int32(raw["completion_tokens"]) if "completion_tokens" in raw else before.completion_tokens,
        ),
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
