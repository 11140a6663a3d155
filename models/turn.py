"""The contract of every chat model here: how a Triton request becomes a turn, and how its words go back.

Inputs and outputs are described in README.md. A turn answers with any number of `send`, the last one with a finish
reason, or with one `refuse` or `fail`; a cancelled turn ends with `end` alone.
"""

import json
import re
import time

import numpy as np
import triton_python_backend_utils as pb_utils

ROLES = ("system", "user", "assistant")
DEFAULT_TEMPERATURE = 0.2
HALF_CHARACTERS = re.compile("[\ud800-\udfff]")
"""JSON can name them, and no answer could repeat them: UTF-8 cannot."""


class Refused(Exception):
    """The request is wrong; the text, which names the reason first, is for the caller."""


class Turn:
    """One answer being made. Raises Refused, with the caller already told, when the request breaks the contract.

    `cancel_poll_s` is how old the answer of `is_cancelled` may be: asking Triton costs a round trip to its process.
    """

    def __init__(self, request: "pb_utils.InferenceRequest", cancel_poll_s: float = 0.02) -> None:
        self._sender = request.get_response_sender()
        self._cancel_poll_s = cancel_poll_s
        self._cancelled = False
        self._asked_s = time.monotonic()  # when Triton gave the turn away, having dropped those cancelled before
        self._told: dict[str, int] = {}
        try:
            self.messages = _messages(_scalar(request, "messages"))
            self.max_tokens = int(_scalar(request, "max_tokens"))
            self.temperature = float(_scalar(request, "temperature", DEFAULT_TEMPERATURE))
            self.interval_s = int(_scalar(request, "interval_ms", 0)) / 1000
            _check("max_tokens", self.max_tokens, 1, 2**31 - 1)
            _check("temperature", self.temperature, 0, 2)
            _check("interval_ms", self.interval_s * 1000, 0, 10_000)
        except Refused as refusal:
            self.refuse(str(refusal))
            raise

    @property
    def prefill(self) -> str:
        """The start of the answer, already shown to the reader: to be continued, not repeated."""
        last = self.messages[-1]
        return last["content"] if last["role"] == "assistant" else ""

    def is_cancelled(self) -> bool:
        now_s = time.monotonic()
        if not self._cancelled and now_s - self._asked_s >= self._cancel_poll_s:
            self._asked_s = now_s
            self._cancelled = self._sender.is_cancelled()
        return self._cancelled

    def send(self, text: str, *, completion_tokens: int, prompt_tokens: int, finish_reason: str = "") -> None:
        """Send `text`, which follows what was sent before. A finish reason, "stop" or "length", ends the turn.

        What has not changed since the response before is left out: a tensor costs about a fifth of a response.
        """
        counts = {"completion_tokens": completion_tokens, "prompt_tokens": prompt_tokens}
        outputs = [
            pb_utils.Tensor(name, np.array([count], dtype=np.int32))
            for name, count in counts.items()
            if count != self._told.get(name, 0)
        ]
        outputs += [
            pb_utils.Tensor(name, np.array([value.encode()], dtype=np.object_))
            for name, value in (("text", text), ("finish_reason", finish_reason))
            if value
        ]
        self._told = counts
        if outputs:
            response = pb_utils.InferenceResponse(outputs)
            self._sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if finish_reason else 0)

    def refuse(self, reason: str) -> None:
        """The caller's fault."""
        self._end_with(pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG))

    def fail(self, reason: str) -> None:
        """The model's fault."""
        self._end_with(pb_utils.TritonError(reason, pb_utils.TritonError.INTERNAL))

    def end(self) -> None:
        """Of a cancelled turn: nobody reads on, but Triton waits for the end."""
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _end_with(self, error: "pb_utils.TritonError") -> None:
        self._sender.send(pb_utils.InferenceResponse(error=error), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _scalar(request: "pb_utils.InferenceRequest", name: str, default: object = None) -> object:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return default
    values = tensor.as_numpy().reshape(-1)
    if values.size != 1:
        raise Refused(f"invalid_request: {name} holds {values.size} values instead of one")
    return values[0]


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise Refused(f"invalid_request: {name} is {value:g}, not from {low:g} to {high:g}")


def _messages(value: object) -> list[dict[str, str]]:
    try:
        messages = json.loads(value)
    except (ValueError, RecursionError):
        raise Refused("invalid_request: messages is not JSON") from None
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise Refused('invalid_request: messages is not a list of {"role": "system|user|assistant", "content": text}')
    if not any(message["role"] == "user" for message in messages):
        raise Refused("invalid_request: messages holds no message of a user")
    return messages


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ROLES and _is_text(message.get("content"))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not HALF_CHARACTERS.search(value)
