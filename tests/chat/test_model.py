"""The adapter to Triton, against a server in this process that speaks the real protocol."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.chat.model import TritonModel
from services.chat.prompt import Prompt
from services.chat.speech import Piece
from services.chat.turn import FinishReason, Usage
from services.shared.errors import Invalid, Reason, Refusal, Unavailable
from tests.chat.conftest import until

PROMPT = Prompt(({"role": "system", "content": "Be kind."}, {"role": "user", "content": "שלום?"}), (), 99)


class Plaintext:
    tls_ca_file = tls_cert_file = tls_key_file = None


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers every request by its script; None in it is a wait without end."""

    script: list[service_pb2.ModelStreamInferResponse | None] = field(default_factory=list)
    requests: list[service_pb2.ModelInferRequest] = field(default_factory=list)
    open_streams: int = 0

    async def ModelStreamInfer(
        self, requests: AsyncIterator[service_pb2.ModelInferRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[service_pb2.ModelStreamInferResponse]:
        self.open_streams += 1
        try:
            async for request in requests:
                self.requests.append(request)
                for response in self.script:
                    if response is None:
                        await asyncio.Event().wait()
                    yield response
        finally:
            self.open_streams -= 1


def said(
    text: str = "", completion: int | None = None, prompt: int | None = None, finish_reason: str = ""
) -> service_pb2.ModelStreamInferResponse:
    """As models/turn.py sends it: without what has not changed."""
    response = service_pb2.ModelInferResponse(model_name="chat")
    tensors = {
        "text": ("BYTES", _bytes(text) if text else None),
        "completion_tokens": ("INT32", _int32(completion)),
        "prompt_tokens": ("INT32", _int32(prompt)),
        "finish_reason": ("BYTES", _bytes(finish_reason) if finish_reason else None),
    }
    for name, (datatype, data) in tensors.items():
        if data is not None:
            response.outputs.add(name=name, datatype=datatype, shape=[1])
            response.raw_output_contents.append(data)
    return service_pb2.ModelStreamInferResponse(infer_response=response)


def failure(message: str) -> service_pb2.ModelStreamInferResponse:
    return service_pb2.ModelStreamInferResponse(error_message=message)


def _bytes(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _int32(number: int | None) -> bytes | None:
    return None if number is None else struct.pack("<i", number)


@asynccontextmanager
async def serving(triton: FakeTriton) -> AsyncIterator[str]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
async def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
async def model(triton: FakeTriton) -> AsyncIterator[TritonModel]:
    async with serving(triton) as address, TritonModel(address, Plaintext()) as model:
        yield model


async def pieces_of(model: TritonModel, temperature: float | None = None, limit_s: float = 5.0) -> list[Piece]:
    return [
        piece async for piece in model.speak("chat", PROMPT, temperature=temperature, interval_s=0, limit_s=limit_s)
    ]


async def test_pieces_come_as_the_model_says_them(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [said("שלום", 1, prompt=17), said(" 🦩", 2), said(finish_reason="length")]
    assert await pieces_of(model) == [
        Piece("שלום", Usage(17, 1), None),
        Piece(" 🦩", Usage(17, 2), None),
        Piece("", Usage(17, 2), FinishReason.LENGTH),
    ]
    await until(lambda: triton.open_streams == 0)


async def test_a_model_may_repeat_what_has_not_changed(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [said("one", 1, 17), said("", 1, 17), said(completion=2, prompt=17, finish_reason="stop")]
    assert await pieces_of(model) == [
        Piece("one", Usage(17, 1), None),
        Piece("", Usage(17, 1), None),
        Piece("", Usage(17, 2), FinishReason.STOP),
    ]


async def test_the_request_is_what_the_models_expect(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [said(finish_reason="stop")]
    await pieces_of(model, temperature=0.5)
    await pieces_of(model)
    first, second = triton.requests
    assert first.model_name == "chat"
    inputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in first.inputs}
    assert inputs == {"messages": ("BYTES", [1]), "max_tokens": ("INT32", [1]), "temperature": ("FP32", [1])}
    messages, max_tokens, temperature = first.raw_input_contents
    assert json.loads(messages[4:]) == list(PROMPT.messages)
    assert (struct.unpack("<i", max_tokens), struct.unpack("<f", temperature)) == ((99,), (0.5,))
    assert [tensor.name for tensor in second.inputs] == ["messages", "max_tokens"]


async def test_an_interval_is_asked_for_in_milliseconds(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [said(finish_reason="stop")]
    pieces = model.speak("chat", PROMPT, temperature=None, interval_s=0.125, limit_s=5)
    assert [piece.finish_reason async for piece in pieces] == [FinishReason.STOP]
    inputs = dict(zip((t.name for t in triton.requests[0].inputs), triton.requests[0].raw_input_contents, strict=True))
    assert struct.unpack("<i", inputs["interval_ms"]) == (125,)


async def test_closing_the_stream_frees_the_model(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [said("one", 1), None]
    async with aclosing(model.speak("chat", PROMPT, temperature=None, interval_s=0, limit_s=5)) as pieces:
        assert (await anext(pieces)).text == "one"
        assert triton.open_streams == 1
    await until(lambda: triton.open_streams == 0)


async def test_cancelling_who_listens_frees_the_model(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [None]
    listening = asyncio.create_task(pieces_of(model))
    await until(lambda: triton.open_streams == 1)
    listening.cancel()
    await asyncio.wait((listening,))
    await until(lambda: triton.open_streams == 0)


async def refused(model: TritonModel, limit_s: float = 5.0) -> Refusal:
    with pytest.raises(Refusal) as raised:
        await pieces_of(model, limit_s=limit_s)
    return raised.value


async def test_a_prompt_that_is_too_long_is_invalid(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [failure("prompt_too_long: 3000 tokens, of 2048 at most"), None]
    refusal = await refused(model)
    assert isinstance(refusal, Invalid)
    assert refusal.reason is Reason.PROMPT_TOO_LONG
    await until(lambda: triton.open_streams == 0)


@pytest.mark.parametrize("message", ["model_failed: no answer", "Request for unknown model: 'chat' is not found"])
async def test_a_model_that_fails_is_unavailable(model: TritonModel, triton: FakeTriton, message: str) -> None:
    triton.script = [failure(message)]
    refusal = await refused(model)
    assert isinstance(refusal, Unavailable)
    assert (refusal.reason, message in refusal.message) == (Reason.MODEL_UNAVAILABLE, False)
    assert refusal.retry_after_s


async def test_a_model_that_hangs_is_given_up(model: TritonModel, triton: FakeTriton) -> None:
    triton.script = [None]
    assert (await refused(model, limit_s=-0.9)).reason is Reason.MODEL_UNAVAILABLE


async def test_without_triton_the_model_is_unavailable_and_comes_back() -> None:
    triton = FakeTriton([said("back", 1, finish_reason="stop")])
    async with serving(triton) as address:
        pass
    async with TritonModel(address, Plaintext()) as model:
        assert (await refused(model)).reason is Reason.MODEL_UNAVAILABLE
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
        server.add_insecure_port(address)
        await server.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await pieces_of(model))[0].text == "back"
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        await server.stop(None)


async def test_a_triton_that_dies_in_the_middle_is_unavailable() -> None:
    triton = FakeTriton([said("half", 1), None])
    async with serving(triton) as address:
        model = TritonModel(address, Plaintext())
        await model.__aenter__()
        pieces = model.speak("chat", PROMPT, temperature=None, interval_s=0, limit_s=5)
        assert (await anext(pieces)).text == "half"
    with pytest.raises(Unavailable):
        await anext(pieces)
    await model.__aexit__(None, None, None)
