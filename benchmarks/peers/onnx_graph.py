"""The encoder as an ONNX graph of the fused operators that ONNX Runtime is fastest with.

Nothing is held back from this peer: projections are fused, constants and the dense head folded, the table has 8 bits
where the matrices have fewer than 32. Texts in one call have equal length, so there is no padding mask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...export.checkpoint.checkpoint import Checkpoint
from ...export.checkpoint.folds import folded_embedding, folded_matrix, folded_norm
from ...export.onnx.encoder import rotation
from ...export.onnx.export import IR_VERSION
from ...export.onnx.graph import CONTRIB, Array, Graph, packed_nibbles
from ...export.onnx.operators import Operators, Rotation, opsets
from ...kernels.config import EncoderConfig

Precision = Literal["float32", "int8", "int4"]

IDS, EMBEDDINGS = "ids", "embeddings"  # input int64 (batch, tokens), output float32 (batch, hidden)
DATA_FILE = "model.data"
EXTERNAL_BYTES = 1024  # larger tensors go into a file of their own, since a model file ends at 2 GB

INT8_LARGEST = 127
INT4_BLOCK = 32  # inputs that share a scale: the finest that MatMulNBits has, and the most exact
INT4_OFFSET = 8  # codes -8 … 7 are stored as 0 … 15
INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level: the fastest


def write_onnx(checkpoint: Checkpoint, precision: Precision, path: Path) -> None:
    """Writes the graph to `path` and its large tensors to DATA_FILE beside it."""
    graph = Graph()
    vectors = PeerEncoder(graph, checkpoint, precision).vectors()
    graph.nodes.append(helper.make_node("Div", vectors, [EMBEDDINGS]))
    _save(graph, checkpoint.config, path)


class PeerEncoder:
    """The steps of the encoder in one precision. All layers use what the constructor computes."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint, precision: Precision) -> None:
        self._graph, self._checkpoint, self._precision = graph, checkpoint, precision
        self._config = config = checkpoint.config
        zero, one = graph.integer(0), graph.integer(1)
        tokens = graph.op("Gather", graph.op("Shape", IDS), one)
        position = graph.op("Range", zero, tokens, one)
        rows, columns = (graph.op("Unsqueeze", position, graph.integers(axis)) for axis in (1, 0))
        distance = graph.op("Abs", graph.op("Sub", rows, columns))  # (tokens, tokens)
        outside = graph.op("Greater", distance, graph.integer(config.window))
        lowest = graph.number(float(np.finfo(np.float32).min))
        bias = graph.op("Where", outside, lowest, graph.number(0))
        length = graph.op("Unsqueeze", tokens, graph.integers(0))
        self._operators = Operators(graph, "onnxruntime", tokens)
        self._rope_sliding = rotation(config, "rope_sliding", config.rope_theta_sliding)
        self._rope_full = rotation(config, "rope_full", config.rope_theta_full)
        # (tokens, 1, tokens): 0 inside the window of a sliding layer, and the lowest float outside.
        self._window_bias = graph.op("Unsqueeze", bias, graph.integers(1))
        # Shapes of scores: (batch, tokens, heads, tokens) and (batch, tokens * heads, tokens).
        self._by_head = graph.op("Concat", graph.integers(0, -1, config.heads), length, axis=0)
        self._by_row = graph.op("Concat", graph.integers(0, -1), length, axis=0)

    def vectors(self) -> list[str]:
        """The vectors (batch, hidden) and their lengths (batch, 1)."""
        graph, hidden = self._graph, self._embedding()
        normed = self._norm(hidden, "layers.0.input_norm")
        for layer in range(self._config.layers):
            normed, hidden = self._layer(layer, normed, hidden)
        pooled = graph.op("ReduceMean", normed, graph.integers(1), keepdims=0)
        vector = self._folded(pooled, "head")
        return [vector, graph.op("ReduceL2", vector, graph.integers(1), keepdims=1)]

    def _embedding(self) -> str:
        """Rows of the table (batch, tokens, hidden)."""
        graph, table = self._graph, folded_embedding(self._checkpoint, 0, self._config.vocab)
        if self._precision == "float32":
            return graph.op("Gather", graph.constant("embedding", table), IDS)
        codes, scales = _int8(table)
        rows = graph.op("Gather", graph.constant("embedding", codes), IDS)
        row_scales = graph.op("Gather", graph.constant("embedding.scale", scales[:, None]), IDS)
        return graph.op("Mul", graph.op("Cast", rows, to=TensorProto.FLOAT), row_scales)

    def _layer(self, layer: int, normed: str, hidden: str) -> tuple[str, str]:
        """One layer: (normed, hidden) in, (hidden after the next layer's norm, hidden) out; (batch, tokens, hidden)."""
        graph, name, read = self._graph, f"layers.{layer}", self._checkpoint.weights.read
        attended = self._attention(layer, self._folded(normed, f"{name}.qkv"))
        output = self._norm(self._folded(attended, f"{name}.o"), f"{name}.post_attention_norm")
        normed, hidden = self._add_and_norm(output, hidden, f"{name}.pre_ffn_norm")
        gate_up = np.concatenate([read(f"{name}.mlp.gate_proj.weight"), read(f"{name}.mlp.up_proj.weight")])
        gate, up = graph.ops("Split", 2, self._linear(normed, f"{name}.gate_up", gate_up), axis=-1, num_outputs=2)
        gated = graph.op("Mul", self._operators.gelu(gate), up)
        output = self._norm(self._folded(gated, f"{name}.down"), f"{name}.post_ffn_norm")
        is_last = layer + 1 == self._config.layers
        return self._add_and_norm(output, hidden, "final_norm" if is_last else f"layers.{layer + 1}.input_norm")

    def _attention(self, layer: int, qkv: str) -> str:
        """Attention (batch, tokens, q_width) over qkv (batch, tokens, q_width + 2 * kv_width).

        All query heads share one key/value head, so queries are one matrix of tokens * heads rows: this was measured
        faster than the fused MultiHeadAttention, which wants a copy of the keys for every head.
        """
        graph, config, full = self._graph, self._config, self._config.is_full(layer)
        widths = graph.integers(config.q_width, config.kv_width, config.kv_width)
        query, key, value = graph.ops("Split", 3, qkv, widths, axis=-1)
        rope = self._rope_full if full else self._rope_sliding
        query = self._rotated(query, config.heads, f"layers.{layer}.q_norm", rope)
        key = self._rotated(key, config.kv_heads, f"layers.{layer}.k_norm", rope)
        rows = graph.op("Reshape", query, graph.integers(0, -1, config.head_dim))
        scores = self._operators.scores(rows, key)
        if not full:
            biased = graph.op("Add", graph.op("Reshape", scores, self._by_head), self._window_bias)
            scores = graph.op("Reshape", biased, self._by_row)
        attended = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        return graph.op("Reshape", attended, graph.integers(0, -1, config.q_width))

    def _rotated(self, projected: str, heads: int, name: str, rope: Rotation) -> str:
        """Norm over each head and rotary embedding of queries or keys (batch, tokens, heads * head_dim)."""
        graph, head_dim = self._graph, self._config.head_dim
        by_head = graph.op("Reshape", projected, graph.integers(0, 0, heads, head_dim))
        normed = graph.op("Reshape", self._norm(by_head, name), graph.integers(0, 0, heads * head_dim))
        return self._operators.rotate(normed, heads, rope)

    def _norm(self, x: str, name: str) -> str:
        """An RMSNorm by its name."""
        return self._operators.norm(x, self._gamma(name), self._config.rms_norm_eps)

    def _add_and_norm(self, output: str, hidden: str, name: str) -> tuple[str, str]:
        """RMSNorm of the sum, and the sum itself."""
        inputs, eps = (output, hidden, self._gamma(name)), self._config.rms_norm_eps
        kind = "SkipSimplifiedLayerNormalization"
        normed, _, _, total = self._graph.ops(kind, 4, *inputs, domain=CONTRIB, epsilon=eps)
        return normed, total

    def _gamma(self, name: str) -> str:
        return self._graph.constant(name, folded_norm(self._checkpoint, name))

    def _folded(self, inputs: str, name: str) -> str:
        """The product with a matrix by its name."""
        return self._linear(inputs, name, folded_matrix(self._checkpoint, name))

    def _linear(self, inputs: str, name: str, weight: Array) -> str:
        """Inputs (…, in) @ weight (out, in).T."""
        graph = self._graph
        if self._precision == "float32":
            return graph.op("MatMul", inputs, graph.constant(name, weight.T))
        if self._precision == "int8":
            codes, scales = _int8(weight)
            constants = graph.constant(name, codes.T), graph.constant(f"{name}.scale", scales)
            return graph.op("DynamicQuantizeMatMul", inputs, *constants, domain=CONTRIB)
        out_features, in_features = weight.shape
        packed, scales = _int4_blocks(weight)
        constants = graph.constant(name, packed), graph.constant(f"{name}.scale", scales)
        shape = {"K": in_features, "N": out_features, "bits": 4, "block_size": INT4_BLOCK}
        return graph.op("MatMulNBits", inputs, *constants, domain=CONTRIB, accuracy_level=INT8_ACTIVATIONS, **shape)


def _int8(weight: Array) -> tuple[Array, Array]:
    """Codes of weight (rows, columns) and one scale a row, as ONNX Runtime's own tool chooses them."""
    scales = np.abs(weight).max(axis=1) / np.float32(INT8_LARGEST)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


def _int4_blocks(weight: Array) -> tuple[Array, Array]:
    """Codes (out, blocks, block / 2), low nibble first, and scales (out * blocks,), of weight (out, in)."""
    blocks = weight.reshape(len(weight), -1, INT4_BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
    scales = -largest / np.float32(INT4_OFFSET)  # the largest gets code -8, the only one of its size
    safe = np.where(scales == 0, np.float32(1), scales)
    codes = np.clip(np.rint(blocks / safe) + INT4_OFFSET, 0, 2 * INT4_OFFSET - 1).astype(np.uint8)
    return packed_nibbles(codes), scales.reshape(-1)


def _save(graph: Graph, config: EncoderConfig, path: Path) -> None:
    inputs = [helper.make_tensor_value_info(IDS, TensorProto.INT64, ["batch", "tokens"])]
    outputs = [helper.make_tensor_value_info(EMBEDDINGS, TensorProto.FLOAT, ["batch", config.hidden])]
    constants = [
        TensorProto(
            name=one.name,
            data_type=one.onnx_type,
            dims=one.shape,
            raw_data=b"".join(map(np.ndarray.tobytes, one.parts())),
        )
        for one in graph.constants.values()
    ]
    body = helper.make_graph(graph.nodes, "encoder", inputs, outputs, constants)
    versions = [helper.make_opsetid(*version) for version in opsets("onnxruntime").items()]
    model = helper.make_model(body, opset_imports=versions, ir_version=IR_VERSION)
    onnx.save_model(model, str(path), save_as_external_data=True, location=DATA_FILE, size_threshold=EXTERNAL_BYTES)
