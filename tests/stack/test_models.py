"""The models on the real Triton, asked as chat and knowledge ask them: KServe v2 over mutual TLS."""

import asyncio
import json
import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.shared.serving.tls import channel_credentials
from stack import authority, catalog, triton
from stack.mesh import Mesh, Options
from stack.part import Part

CHAT_MODELS = ("chat", "echo")
SLOTS = 4
"""Of the model `chat`; see its config.pbtxt."""
LONG_TOKENS = 1500
TIMEOUT_S = 30


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory) -> AsyncIterator[Mesh]:
    """In the loop of the tests, so that the supervisor lives meanwhile."""

    def part(mesh: Mesh) -> Part:
        return triton.part(replace(mesh, options=replace(mesh.options, chat_models=CHAT_MODELS)))

    async with catalog.running(tmp_path_factory.mktemp("mesh"), part) as mesh:
        yield mesh


def open_channel(mesh: Mesh, name: str, owner: Mesh | None = None) -> grpc.aio.Channel:
    """With the certificate of this name, of the mesh itself unless told."""
    owner = owner or mesh
    files = SimpleNamespace(
        tls_ca_file=mesh.ca_file, tls_cert_file=owner.cert_file(name), tls_key_file=owner.key_file(name)
    )
    options = [("grpc.ssl_target_name_override", "triton"), ("grpc.max_reconnect_backoff_ms", 1_000)]
    return grpc.aio.secure_channel(mesh.address("triton"), channel_credentials(files), options)


@pytest.fixture(scope="module")
async def models(mesh) -> AsyncIterator["Models"]:
    async with open_channel(mesh, "chat") as channel:
        yield Models(channel)


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
        self.completion_tokens = 0

    async def next_piece(self) -> Piece | None:
        """None at the end. Raises Refused."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            return None
        if message.error_message:
            raise Refused(message.error_message)
        response = message.infer_response
        raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
        completion_tokens, prompt_tokens = (
            struct.unpack("<i", raw[name])[0] for name in ("completion_tokens", "prompt_tokens")
        )
        self.completion_tokens = completion_tokens
        text, finish_reason = (raw[name][4:].decode() for name in ("text", "finish_reason"))
        return Piece(text, completion_tokens, prompt_tokens, finish_reason, time.monotonic())

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
        add(request, "messages", "BYTES", [1], string(messages))
        add(request, "max_tokens", "INT32", [1], struct.pack("<i", max_tokens))
        if temperature is not None:
            add(request, "temperature", "FP32", [1], struct.pack("<f", temperature))
        if interval_ms is not None:
            add(request, "interval_ms", "INT32", [1], struct.pack("<i", interval_ms))
        return Turn(self.stub.ModelStreamInfer(iter([request]), timeout=TIMEOUT_S, metadata=metadata))

    async def say(self, model: str, messages: list[dict[str, str]] | bytes, **options: object) -> list[Piece]:
        """The whole answer. Raises Refused."""
        return await self.start(model, messages, **options).pieces()

    async def embed(self, *texts: str | bytes) -> np.ndarray:
        request = service_pb2.ModelInferRequest(model_name="embedding")
        values = [text.encode() if isinstance(text, str) else text for text in texts]
        add(request, "text", "BYTES", [len(values), 1], b"".join(map(string, values)))
        response = await self.stub.ModelInfer(request, timeout=TIMEOUT_S)
        [output] = response.outputs
        assert (output.name, output.datatype) == ("embedding", "FP32")
        return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(output.shape)


def add(request: service_pb2.ModelInferRequest, name: str, datatype: str, shape: list[int], raw: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)


def string(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def order(tokens: int, tokens_per_s: float) -> list[dict[str, str]]:
    return [user(f"tokens={tokens} tokens_per_s={tokens_per_s:g}")]


def numbers(tokens: int) -> str:
    return " ".join(str(number) for number in range(1, tokens + 1))


# echo


async def test_echo_streams_the_ordered_words_one_by_one_and_none_before_it_is_due(models):
    tokens, tokens_per_s = 20, 40
    asked_s = time.monotonic()
    pieces = await models.say("echo", order(tokens, tokens_per_s), max_tokens=1)
    assert text_of(pieces) == numbers(tokens)
    assert [piece.completion_tokens for piece in pieces] == list(range(1, tokens + 1))
    assert all(piece.at_s - asked_s >= place / tokens_per_s for place, piece in enumerate(pieces))
    assert pieces[-1].at_s - asked_s < tokens / tokens_per_s + 5


async def test_echo_without_a_rate_streams_as_fast_as_it_can(models):
    pieces = await models.say("echo", order(3000, 0))
    assert text_of(pieces) == numbers(3000)
    assert len(pieces) == 3000
    assert pieces[-1].finish_reason == "stop"


async def test_echo_obeys_an_order_that_is_one_line_of_the_last_question(models):
    messages = [user("tokens=9 tokens_per_s=0"), assistant("1 2 3"), user("Please:\ntokens=2 tokens_per_s=0\nThanks.")]
    assert text_of(await models.say("echo", messages)) == "1 2"


async def test_echo_repeats_any_other_words_whole(models):
    words = "Ça va?\n  שלום 🦩 tokens=3"
    pieces = await models.say("echo", [user("not these"), assistant("nor these"), user(words)])
    assert text_of(pieces) == words
    assert [piece.text.split() for piece in pieces] == [[word] for word in words.split()]
    assert pieces[-1].finish_reason == "stop"


async def test_echo_stops_repeating_at_max_tokens(models):
    pieces = await models.say("echo", [user("one two three")], max_tokens=2)
    assert (text_of(pieces), pieces[-1].finish_reason) == ("one two", "length")


async def test_words_of_an_interval_share_a_response(models):
    pieces = await models.say("echo", order(40, 100), interval_ms=100)
    assert text_of(pieces) == numbers(40)
    assert [piece.completion_tokens for piece in pieces] == [1, 11, 21, 31, 40]


async def test_echo_continues_what_the_assistant_has_said(models):
    ordered = await models.say("echo", [*order(5, 0), assistant("1 2 3")])
    assert text_of(ordered) == " 4 5"
    repeated = await models.say("echo", [user("one two three"), assistant("one two")])
    assert text_of(repeated) == " three"


# The contract of every chat model


@pytest.mark.parametrize("model", CHAT_MODELS)
async def test_usage_counts_the_whole_prompt_and_the_words_so_far(models, model):
    short = await models.say(model, [user("Tell me about the sea and the wind.")], max_tokens=6)
    assert {piece.prompt_tokens for piece in short} == {short[0].prompt_tokens}
    counts = [piece.completion_tokens for piece in short]
    assert counts == sorted(counts)
    assert (counts[-1], short[-1].finish_reason) == (6, "length")
    history = [user("Hello there."), assistant("Hello to you too."), user("Tell me about the sea and the wind.")]
    longer = await models.say(model, history, max_tokens=6)
    assert longer[0].prompt_tokens >= short[0].prompt_tokens + 6


@pytest.mark.parametrize("model", CHAT_MODELS)
async def test_only_the_last_response_tells_why_it_ended_and_the_stream_ends_with_it(models, model):
    turn = models.start(model, [user("Say hi.")], max_tokens=3)
    pieces = await turn.pieces()
    assert [bool(piece.finish_reason) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert await turn.call.code() is grpc.StatusCode.OK


MALFORMED = {
    "nothing": b"",
    "not JSON": b"Hello",
    "not UTF-8": b'[{"role": "user", "content": "\xe9"}]',
    "half a character": rb'[{"role": "user", "content": "\ud83e"}]',
    "nested without end": b"[" * 200_000,
    "no list": b'{"role": "user", "content": "Hello"}',
    "no message": b"[]",
    "no question": b'[{"role": "system", "content": "Be kind."}]',
    "a list for a role": b'[{"role": ["user"], "content": "Hello"}]',
    "unknown role": b'[{"role": "root", "content": "Hello"}]',
    "no text": b'[{"role": "user", "content": 7}]',
}


@pytest.mark.parametrize("model", CHAT_MODELS)
@pytest.mark.parametrize("messages", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_messages_are_refused_and_the_model_lives_on(models, model, messages):
    with pytest.raises(Refused, match=r"^invalid_request: messages"):
        await models.say(model, messages)
    assert text_of(await models.say(model, [user("Hello")], max_tokens=1))


@pytest.mark.parametrize("model", CHAT_MODELS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("temperature", 2.5),
        ("temperature", -0.5),
        ("temperature", float("nan")),
        ("interval_ms", -1),
        ("interval_ms", 10_001),
    ],
)
async def test_setting_out_of_range_is_named(models, model, name, value):
    with pytest.raises(Refused, match=rf"^invalid_request: {name} is "):
        await models.say(model, [user("Hello")], **{name: value})


async def test_refusal_ends_the_stream_with_its_status_where_the_caller_asks_for_that(models):
    turn = models.start("echo", b"Hello", metadata=(("triton_grpc_error", "true"),))
    with pytest.raises(grpc.aio.AioRpcError, match="invalid_request: messages is not JSON") as refused:
        await turn.pieces()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# chat


async def test_chat_continues_what_the_assistant_has_said(models):
    question, start = user("What is the capital of France?"), "The capital of France is"
    pieces = await models.say("chat", [question, assistant(start)], temperature=0)
    assert text_of(pieces).startswith(" Paris")
    assert start not in text_of(pieces)
    unstarted = await models.say("chat", [question], max_tokens=1)
    assert pieces[0].prompt_tokens == unstarted[0].prompt_tokens + len(start.split())


async def test_chat_shares_a_response_between_the_words_of_an_interval_but_never_holds_the_first(models):
    pieces = await models.say("chat", [user("Tell me about the sea.")], max_tokens=24, interval_ms=10_000)
    assert len(pieces) == 2
    assert pieces[0].text
    assert pieces[0].completion_tokens < pieces[1].completion_tokens


@pytest.mark.parametrize("max_tokens", [4, 5, 24])
@pytest.mark.parametrize("start", ["🦩🦩🦩🦩", "שלום עולם"])
async def test_chat_sends_whole_characters_though_each_takes_several_tokens(models, start, max_tokens):
    messages = [user(f"Repeat many times: {start} {start} {start}"), assistant(start)]
    pieces = await models.say("chat", messages, temperature=0, max_tokens=max_tokens)
    assert any(ord(character) > 127 for character in text_of(pieces))
    assert "\N{REPLACEMENT CHARACTER}" not in text_of(pieces)
    assert len([piece for piece in pieces if piece.text]) < pieces[-1].completion_tokens


async def test_prompt_beyond_the_context_is_refused_with_both_sizes(models):
    with pytest.raises(Refused, match=r"^prompt_too_long: 3\d{3} tokens, of 2048 at most$"):
        await models.say("chat", [user("word " * 3000)])
    assert text_of(await models.say("chat", [user("Hello")], max_tokens=1))


async def test_marks_of_the_chat_template_are_mere_text(models):
    plain = await models.say("chat", [user("word " * 10)], max_tokens=1)
    marks = await models.say("chat", [user("<|im_end|>" * 10)], max_tokens=1)
    assert marks[0].prompt_tokens > plain[0].prompt_tokens + 20  # as a mark, each is one token


async def test_cancelled_turn_leaves_its_slot_to_the_one_that_waits(models):
    counting = [user("Count from 1 to 1000."), assistant("1, 2, 3, 4, 5, 6, 7, 8,")]
    turns = [models.start("chat", counting, temperature=0, max_tokens=LONG_TOKENS) for _ in range(SLOTS)]
    cancelled, *others = turns
    readers: list[asyncio.Task] = []
    try:
        for turn in turns:
            assert await turn.next_piece()
        waiting = models.start("chat", [user("Hello")], max_tokens=4)
        turns.append(waiting)
        begun = asyncio.create_task(waiting.next_piece())
        for turn in [cancelled, *others] * 10:
            assert await turn.next_piece()
        assert not begun.done()
        cancelled.call.cancel()
        readers = [asyncio.create_task(turn.pieces()) for turn in others]
        assert await begun
        assert all(turn.completion_tokens < LONG_TOKENS / 2 for turn in others)
        assert not any(reader.done() for reader in readers)
    finally:
        for turn in turns:
            turn.call.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


# embedding


async def test_embeddings_have_384_places_and_length_1(models):
    embeddings = await models.embed("The cat sat on the mat.", "", "שלום", "word " * 1000)
    assert embeddings.shape == (4, 384)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)


async def test_sentences_that_mean_the_same_lie_nearer_than_others(models):
    question, same, other = await models.embed(
        "How do I reset my password?",
        "Steps to recover access to an account when the login secret is forgotten.",
        "The recipe needs two eggs and a cup of flour.",
    )
    assert question @ same > question @ other + 0.2


async def test_batch_gives_what_each_text_gives_alone(models):
    texts = [f"Sentence {number}" + " and more words" * (number**2) for number in range(12)]
    together = await models.embed(*texts)
    singles = await asyncio.gather(*(models.embed(text) for text in texts))
    assert together == pytest.approx(np.concatenate(singles), abs=1e-4)


async def test_32_texts_are_embedded_and_33_are_refused(models):
    assert (await models.embed(*["text"] * 32)).shape == (32, 384)
    with pytest.raises(grpc.aio.AioRpcError, match="must be <= 32") as refused:
        await models.embed(*["text"] * 33)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_text_that_is_not_utf8_is_refused(models):
    with pytest.raises(grpc.aio.AioRpcError, match="text is not UTF-8") as refused:
        await models.embed(b"caf\xe9")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await models.embed("café")).shape == (1, 384)


# Who may ask, and for what

CLOSED = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="echo"),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="echo"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1),
    "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": service_pb2.CudaSharedMemoryRegisterRequest(name="x", byte_size=1),
    "CudaSharedMemoryUnregister": service_pb2.CudaSharedMemoryUnregisterRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
}


@pytest.mark.parametrize("call", CLOSED)
async def test_call_that_manages_the_server_is_closed(models, call):
    for metadata in ((), (("triton-grpc-protocol-closed", "guess"),)):
        with pytest.raises(grpc.aio.AioRpcError, match="protocol is restricted"):
            await getattr(models.stub, call)(CLOSED[call], timeout=TIMEOUT_S, metadata=metadata)
    ready = await models.stub.ModelReady(service_pb2.ModelReadyRequest(name="echo"), timeout=TIMEOUT_S)
    assert ready.ready


async def is_served(channel: grpc.aio.Channel) -> bool:
    async with channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False
        return True


async def test_only_chat_and_knowledge_are_served(mesh):
    served = {name for name in authority.WORKLOADS if await is_served(open_channel(mesh, name))}
    assert served == {"chat", "knowledge"}


async def test_chat_of_another_mesh_is_refused(mesh, tmp_path):
    other = Mesh(data_dir=tmp_path, options=Options(), ports={})
    authority.ensure(other)
    assert not await is_served(open_channel(mesh, "chat", owner=other))


async def test_client_without_a_certificate_is_refused(mesh):
    credentials = grpc.ssl_channel_credentials(mesh.ca_file.read_bytes())
    options = [("grpc.ssl_target_name_override", "triton")]
    assert not await is_served(grpc.aio.secure_channel(mesh.address("triton"), credentials, options))


async def test_tls_before_1_3_is_refused(mesh):
    client = ssl.create_default_context(cafile=mesh.ca_file)
    client.load_cert_chain(mesh.cert_file("chat"), mesh.key_file("chat"))
    client.set_alpn_protocols(["h2"])
    assert shake_hands(mesh, client) == "TLSv1.3"
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(mesh, client)


def shake_hands(mesh: Mesh, client: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection(("127.0.0.1", mesh.ports["triton"]), timeout=5) as plain,
        client.wrap_socket(plain, server_hostname="triton") as secure,
    ):
        return secure.version()


# Failure


def status(mesh: Mesh) -> dict:
    return json.loads((mesh.data_dir / "status.json").read_text())["parts"]["triton"]


async def test_death_of_one_model_ends_its_turns_and_brings_all_models_back(mesh, models):
    before = psutil.Process(status(mesh)["pid"])
    [process] = [child for child in before.children() if "/models/echo/" in " ".join(child.cmdline())]
    turn = models.start("echo", order(100_000, 50))
    assert await turn.next_piece()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises((Refused, grpc.aio.AioRpcError)):
        await turn.pieces()
    async with asyncio.timeout(TIMEOUT_S):
        while (now := status(mesh))["restarts"] != 1 or now["state"] != "ready":
            await asyncio.sleep(0.05)
    assert not before.is_running()
    await models.stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=TIMEOUT_S, wait_for_ready=True)
    assert text_of(await models.say("echo", order(3, 0))) == "1 2 3"
    assert (await models.embed("text")).shape == (1, 384)
