"""A rerank model for tests: the longest run of the query's words that stands in the text, which no search measures.

A text that says "too slow" makes it take three seconds, one that says "no score" makes it fail.
"""

import re
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: list) -> list:
        return [_answer(*(_texts(request, name) for name in ("query", "text"))) for request in requests]


def _texts(request: "pb_utils.InferenceRequest", name: str) -> list[str]:
    values = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return [value.decode() for value in values.reshape(-1)]


def _answer(queries: list[str], texts: list[str]) -> "pb_utils.InferenceResponse":
    if any("too slow" in text for text in texts):
        time.sleep(3)
    if any("no score" in text for text in texts):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("told to fail"))
    scores = [[float(_longest_run(query, text))] for query, text in zip(queries, texts, strict=True)]
    return pb_utils.InferenceResponse([pb_utils.Tensor("score", np.array(scores, dtype=np.float32))])


def _longest_run(query: str, text: str) -> int:
    wanted, said = re.findall(r"[^\W_]+", query.lower()), " ".join(re.findall(r"[^\W_]+", text.lower()))
    runs = (wanted[begin:end] for begin in range(len(wanted)) for end in range(begin + 1, len(wanted) + 1))
    return max((len(run) for run in runs if f" {' '.join(run)} " in f" {said} "), default=0)
