"""The ONNX graph of a BERT sentence encoder, written from its published weights alone (no torch).

The graph names each weight by its place in the safetensors file, so that onnxruntime maps it from there: nothing is
copied or cached. Hidden states keep the form [batch * tokens, width], the one that `Gemm` takes with weights stored as
[out, in].
"""

import json
import struct
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, helper

TYPES = {"F32": TensorProto.FLOAT, "I64": TensorProto.INT64}


def sentence_encoder(weights: Path, config: dict) -> ModelProto:
    """input_ids, attention_mask: INT32 [batch, tokens] -> embedding: FLOAT [batch, width], of length 1.

    `config` is the model's config.json. The weights must lie in the folder that the session option
    `session.model_external_initializers_file_folder_path` names.
    """
    width = config["hidden_size"]
    graph = _Graph(config)
    graph.add("Shape", ["input_ids"], "shape")
    graph.add("Concat", ["shape", graph.integers("width", [width])], "shape_3d", axis=0)
    hidden = _embeddings(graph)
    for number in range(config["num_hidden_layers"]):
        hidden = _layer(graph, hidden, f"encoder.layer.{number}")
    graph.add("Reshape", [hidden, "shape_3d"], "tokens")
    # The sum over the real tokens: its direction is that of their mean, and only the direction outlives the norm.
    graph.add("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    graph.add("Unsqueeze", ["mask", graph.integers("row", [1])], "mask_row")
    graph.add("MatMul", ["mask_row", "tokens"], "pooled_row")
    graph.add("Squeeze", ["pooled_row", "row"], "pooled")
    graph.add("LpNormalization", ["pooled"], "embedding", axis=1, p=2)
    return graph.model(_initializers(weights), width)


def _embeddings(graph: "_Graph") -> str:
    zero, one, column = (graph.integers(name, [n]) for name, n in (("zero", 0), ("one", 1), ("column", -1)))
    graph.add("Gather", ["embeddings.word_embeddings.weight", "input_ids"], "words")
    graph.add("Slice", ["shape", one, graph.integers("two", [2])], "length")
    graph.add("Slice", ["embeddings.position_embeddings.weight", zero, "length", zero], "positions")
    graph.add("Gather", ["embeddings.token_type_embeddings.weight", zero], "first_type")
    graph.add("Add", ["positions", "first_type"], "places")
    graph.add("Add", ["words", "places"], "summed_3d")
    graph.add("Concat", [column, "width"], "shape_2d", axis=0)
    graph.add("Reshape", ["summed_3d", "shape_2d"], "summed")
    return graph.layer_norm("summed", "embeddings.LayerNorm")


def _layer(graph: "_Graph", hidden: str, name: str) -> str:
    parts = [
        graph.reshape(graph.linear(hidden, f"{name}.attention.self.{part}"), "shape_3d")
        for part in ("query", "key", "value")
    ]
    attended = graph.add(
        "MultiHeadAttention",
        [*parts, "", "attention_mask"],
        f"{name}.attended",
        domain="com.microsoft",
        num_heads=graph.config["num_attention_heads"],
    )
    projected = graph.linear(graph.reshape(attended, "shape_2d"), f"{name}.attention.output.dense")
    seen = graph.layer_norm(graph.sum(projected, hidden), f"{name}.attention.output.LayerNorm")
    wide = graph.linear(seen, f"{name}.intermediate.dense")
    narrow = graph.linear(graph.add("Gelu", [wide], f"{wide}.active"), f"{name}.output.dense")
    return graph.layer_norm(graph.sum(narrow, seen), f"{name}.output.LayerNorm")


class _Graph:
    """Nodes in the order of their making; every adder returns the name of what it made."""

    def __init__(self, config: dict) -> None:
        self.config = config
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def integers(self, name: str, values: list[int]) -> str:
        self.constants.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def linear(self, hidden: str, name: str) -> str:
        return self.add("Gemm", [hidden, f"{name}.weight", f"{name}.bias"], f"{name}.out", transB=1)

    def sum(self, left: str, right: str) -> str:
        return self.add("Add", [left, right], f"{left}.summed")

    def reshape(self, hidden: str, shape: str) -> str:
        return self.add("Reshape", [hidden, shape], f"{hidden}.reshaped")

    def layer_norm(self, hidden: str, name: str) -> str:
        epsilon = self.config["layer_norm_eps"]
        return self.add(
            "LayerNormalization", [hidden, f"{name}.weight", f"{name}.bias"], f"{name}.out", epsilon=epsilon
        )

    def model(self, weights: dict[str, TensorProto], width: int) -> ModelProto:
        used = {name for node in self.nodes for name in node.input}
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])
        initializers = self.constants + [weights[name] for name in weights if name in used]
        graph = helper.make_graph(self.nodes, "sentence_encoder", inputs, [output], initializers)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _initializers(weights: Path) -> dict[str, TensorProto]:
    """The tensors of a safetensors file: eight bytes of header length, a JSON header, then the values."""
    with weights.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        tensor = TensorProto(name=name, data_type=TYPES[entry["dtype"]], dims=entry["shape"])
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": weights.name, "offset": 8 + header_bytes + start, "length": end - start}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        found[name] = tensor
    return found
