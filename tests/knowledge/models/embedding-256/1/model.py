"""A second real embedding model for tests: the first 256 dimensions of models/embedding, of length 1 again."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).resolve().parents[5] / "models" / "embedding" / "1"
sys.path.insert(0, str(_FOLDER))
_spec = importlib.util.spec_from_file_location("embedding_model", _FOLDER / "model.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)


class TritonPythonModel(_module.TritonPythonModel):
    def _embed(self, texts: list[str]) -> list[np.ndarray]:
        shorter = [vector[:256] for vector in super()._embed(texts)]
        return [vector / np.linalg.norm(vector) for vector in shorter]
