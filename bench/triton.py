"""The reference line: the same tokens straight from the model server, by the generated client over mutual TLS."""

import json
from collections.abc import AsyncIterator

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.mesh import RunningMesh


def question(tokens: int, tokens_per_s: float) -> str:
    """What makes the `echo` model stream so many tokens at such a rate."""
    return f"tokens={tokens} tokens_per_s={tokens_per_s:g}"


def channel(mesh: RunningMesh) -> grpc.aio.Channel:
    return mesh.mesh_channel(mesh.triton, "triton", "chat")


async def stream(opened: grpc.aio.Channel, text: str, max_tokens: int) -> AsyncIterator[str]:
    """The deltas of one answer."""
    request = service_pb2.ModelInferRequest(model_name="echo")
    _add(request, "messages", "BYTES", _bytes(json.dumps([{"role": "user", "content": text}]).encode()))
    _add(request, "max_tokens", "INT32", np.array([max_tokens], np.int32).tobytes())
    call = service_pb2_grpc.GRPCInferenceServiceStub(opened).ModelStreamInfer(iter([request]))
    async for message in call:
        if message.error_message:
            raise RuntimeError(message.error_message)
        response = message.infer_response
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            if output.name == "text" and (delta := raw[4:].decode()):
                yield delta


def _add(request: service_pb2.ModelInferRequest, name: str, datatype: str, raw: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[1])
    request.raw_input_contents.append(raw)


def _bytes(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value
