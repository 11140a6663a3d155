"""A client of the models as chat and knowledge are: KServe v2 over mutual TLS, requests and answers in their terms."""

import json
import struct
import time
from dataclasses import dataclass
from types import SimpleNamespace

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.shared.serving.tls import channel_credentials
from stack.mesh import Mesh

TIMEOUT_S = 30


def open_channel(mesh: Mesh, name: str, owner: Mesh | None = None) -> grpc.aio.Channel:
    """With the certificate of this name, of the mesh itself unless told."""
    owner = owner or mesh
    files = SimpleNamespace(
        tls_ca_file=mesh.ca_file, tls_cert_file=owner.cert_file(name), tls_key_file=owner.key_file(name)
    )
    options = [("grpc.ssl_target_name_override", "triton"), ("grpc.max_reconnect_backoff_ms", 1_000)]
    return grpc.aio.secure_channel(mesh.address("triton"), channel_credentials(files), options)


@dataclass(frozen=True)
class Piece:
    """One response of a turn, and when it came."""

    text: str
    completion_tokens: int
    prompt_tokens: int
    finish_reason: str
    at_s: float


class Refused(Exception):
    """The error message of a response."""


class Turn:
    def __init__(self, call: grpc.aio.StreamStreamCall) -> None:
        self.call = call
        self.completion_tokens = self.prompt_tokens = 0
        self.outputs: list[set[str]] = []
        """Of each response."""

    async def next_piece(self) -> Piece | None:
        """None at the end. Raises Refused."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            return None
        if message.error_message:
            raise Refused(message.error_message)
        response = message.infer_response
        raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
        self.outputs.append(set(raw))
        self.completion_tokens, self.prompt_tokens = (
            struct.unpack("<i", raw[name])[0] if name in raw else getattr(self, name)
            for name in ("completion_tokens", "prompt_tokens")
        )
        text, finish_reason = (raw[name][4:].decode() if name in raw else "" for name in ("text", "finish_reason"))
        return Piece(text, self.completion_tokens, self.prompt_tokens, finish_reason, time.monotonic())

    async def pieces(self) -> list[Piece]:
        found = []
        while piece := await self.next_piece():
            found.append(piece)
        return found


class Models:
    """The generated client, with requests in its terms."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def start(
        self,
        model: str,
        messages: list[dict[str, str]] | bytes,
        *,
        max_tokens: int = 64,
        temperature: float | None = None,
        interval_ms: int | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Turn:
        if not isinstance(messages, bytes):
            messages = json.dumps(messages).encode()
        request = service_pb2.ModelInferRequest(model_name=model)
        _add(request, "messages", "BYTES", [1], _string(messages))
        _add(request, "max_tokens", "INT32", [1], struct.pack("<i", max_tokens))
        if temperature is not None:
            _add(request, "temperature", "FP32", [1], struct.pack("<f", temperature))
        if interval_ms is not None:
            _add(request, "interval_ms", "INT32", [1], struct.pack("<i", interval_ms))
        return Turn(self.stub.ModelStreamInfer(iter([request]), timeout=TIMEOUT_S, metadata=metadata))

    async def say(self, model: str, messages: list[dict[str, str]] | bytes, **options: object) -> list[Piece]:
        """The whole answer. Raises Refused."""
        return await self.start(model, messages, **options).pieces()

    async def embed(self, *texts: str | bytes) -> np.ndarray:
        request = service_pb2.ModelInferRequest(model_name="embedding")
        values = [text.encode() if isinstance(text, str) else text for text in texts]
        _add(request, "text", "BYTES", [len(values), 1], b"".join(map(_string, values)))
        response = await self.stub.ModelInfer(request, timeout=TIMEOUT_S)
        [output] = response.outputs
        assert (output.name, output.datatype) == ("embedding", "FP32")
        return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(output.shape)


def _add(request: service_pb2.ModelInferRequest, name: str, datatype: str, shape: list[int], raw: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)


def _string(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def order(tokens: int, tokens_per_s: float) -> list[dict[str, str]]:
    return [user(f"tokens={tokens} tokens_per_s={tokens_per_s:g}")]
