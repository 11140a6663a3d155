"""The models on the real Triton, asked as chat and knowledge ask them."""

import asyncio
import time

import grpc
import numpy as np
import pytest

from tests.stack.conftest import CHAT_MODELS
from tests.stack.kserve import Refused, assistant, order, text_of, user

SLOTS = 4
"""Of the model `chat`; see its config.pbtxt."""


LONG_TOKENS = 1500


def numbers(tokens: int) -> str:
    return " ".join(str(number) for number in range(1, tokens + 1))


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


@pytest.mark.parametrize("model", CHAT_MODELS)
async def test_response_leaves_out_what_has_not_changed(models, model):
    turn = models.start(model, [user("Tell me about the sea and the wind.")], max_tokens=6)
    pieces = await turn.pieces()
    first, *others = turn.outputs
    assert first >= {"text", "completion_tokens", "prompt_tokens"}
    assert ["text" in names for names in turn.outputs] == [bool(piece.text) for piece in pieces]
    assert not any("prompt_tokens" in names for names in others)
    assert ["finish_reason" in names for names in turn.outputs] == [bool(piece.finish_reason) for piece in pieces]


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
