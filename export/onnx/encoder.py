"""The forward pass as a graph, in model order. kernels/reference.py is the same in NumPy."""

from __future__ import annotations

from typing import Literal

import numpy as np
from onnx import TensorProto

from ...kernels.config import EncoderConfig
from ...kernels.layout import INT4_CODEBOOKS
from ...kernels.rotation import ROTATION, rotate_blocks
from ...onnx.onnx_backend import ATTENTION_MASK, INPUT_IDS, SENTENCE_EMBEDDING
from ...onnx.onnx_choices import Target
from .attention import Attention, Batch, longest_padded, make_batch
from .graph import FLOAT, Graph
from .linear import Linear
from .onnx_weights import EMBEDDING_BLOCK, MATRIX_ROTATION, EncoderWeights
from .operators import Operators, Rotation

LAST_HIDDEN_STATE = "last_hidden_state"

_SMALLEST_LENGTH = 1e-12  # of a vector that is to be divided by its length, as PyTorch's normalize has it


def encoder_graph(weights: EncoderWeights, target: Target, tokens: Literal["hidden", "shares"] | None) -> Graph:
    """The graph from INPUT_IDS and ATTENTION_MASK to SENTENCE_EMBEDDING, and LAST_HIDDEN_STATE if asked for.

    The latter has the final norm's "hidden" state of each token, or its "shares" in the vector: as the head is linear,
    their mean has the direction of the vector, so libraries that know no head may pool and normalise them.
    """
    graph = Graph()
    batch = make_batch(graph, weights.config, INPUT_IDS, ATTENTION_MASK)
    encoder = _Encoder(graph, weights, target, batch)
    hidden = encoder.embed()
    for layer in range(weights.config.layers):
        hidden = encoder.layer(layer, hidden)
    hidden = encoder.norm(hidden, "final_norm")
    if tokens == "shares":
        values = encoder.head(hidden, batch.rows, scaled=True)
        vector = encoder.total(values)
    else:
        values = hidden
        vector = encoder.head(encoder.total(hidden), batch.batch, scaled=False)
    graph.name_output(encoder.unit(vector), SENTENCE_EMBEDDING)
    if tokens is not None:
        graph.name_output(encoder.given_tokens(values), LAST_HIDDEN_STATE)
    used = {name for node in graph.nodes for name in node.input}
    graph.constants = {name: constant for name, constant in graph.constants.items() if name in used}
    return graph


class _Encoder:
    """The steps. Activations are (rows, width) float32, where rows are all tokens of all texts, padding included."""

    def __init__(self, graph: Graph, weights: EncoderWeights, target: Target, batch: Batch) -> None:
        self._graph = graph
        self._config = weights.config
        self._weights = weights
        self._batch = batch
        self._operators = Operators(graph, target, batch.tokens)
        self._linear = Linear(graph, weights.matrices, target)
        self._attention = Attention(graph, weights.config, self._operators, batch)
        self._hadamard: dict[int, str] = {}  # by the size of blocks
        self._sliding = rotation(weights.config, "rope_sliding", weights.config.rope_theta_sliding)
        self._full = rotation(weights.config, "rope_full", weights.config.rope_theta_full)

    def embed(self) -> str:
        """The rows of the table."""
        graph, scale = self._graph, self._weights.table_scale
        ids = graph.op("Reshape", self._batch.ids, graph.integers(-1))
        rows = graph.op("Gather", graph.add(self._weights.table), ids)
        if scale is None:
            return rows
        codes = graph.cast(rows, FLOAT) if self._weights.format == "int8" else self._unpacked(rows)
        scales = graph.cast(graph.op("Gather", graph.add(scale), ids), FLOAT)  # (rows, groups)
        by_group = graph.op("Reshape", codes, graph.integers(0, scale.shape[1], -1))
        values = graph.op("Mul", by_group, graph.op("Unsqueeze", scales, graph.integers(2)))
        return self._rotated(values, self._config.hidden, ROTATION)

    def _unpacked(self, rows: str) -> str:
        """int4 levels (rows, hidden) of rows of bytes: blocks of 64, first their low nibbles and then their high."""
        graph = self._graph
        low = graph.op("BitwiseAnd", rows, graph.small(15, np.uint8))
        high = graph.op("BitShift", rows, graph.small(4, np.uint8), direction="RIGHT")
        by_block = graph.integers(0, -1, EMBEDDING_BLOCK // 2)
        codes = graph.op("Concat", *(graph.op("Reshape", half, by_block) for half in (low, high)), axis=2)
        levels = graph.constant("int4_levels", INT4_CODEBOOKS[0].astype(np.float32))
        return graph.op("Gather", levels, graph.cast(codes, TensorProto.INT32))

    def layer(self, index: int, hidden: str) -> str:
        """One layer."""
        graph, name = self._graph, f"layers.{index}"
        out = self._attend(index, self.norm(hidden, f"{name}.input_norm"))
        hidden = graph.op("Add", hidden, self.norm(out, f"{name}.post_attention_norm"))
        out = self._feed_forward(name, self.norm(hidden, f"{name}.pre_ffn_norm"))
        return graph.op("Add", hidden, self.norm(out, f"{name}.post_ffn_norm"))

    def _attend(self, index: int, x: str) -> str:
        """Attention of a layer."""
        graph, linear, attention, name = self._graph, self._linear, self._attention, f"layers.{index}"
        is_full = self._config.is_full(index)
        rotation = self._full if is_full else self._sliding
        rows = linear.rows(f"{name}.qkv", self._rotated(x, self._config.hidden), self._batch.rows)
        widths = graph.integers(self._config.q_width, self._config.kv_width, self._config.kv_width)
        projected = graph.op("Reshape", linear.product(f"{name}.qkv", rows), attention.by_token)
        query, key, value = graph.ops("Split", 3, projected, widths, axis=-1)
        # Queries and keys have norms, which divide the scales of rows out.
        query = attention.heads(query, self._config.heads, self._norm_weights(f"{name}.q_norm"), rotation)
        key = attention.heads(key, 1, self._norm_weights(f"{name}.k_norm"), rotation)
        value = rows.scaled(graph, value, attention.by_token)
        attended = attention.full(query, key, value) if is_full else attention.sliding(query, key, value)
        # Rotated, as the values are. The norm that follows divides the scales of rows out: its eps is at most 0.0014 of
        # the mean square of a row with scales, and less without. After `down`, eps is up to 15 times the mean square.
        return linear.product(f"{name}.o", linear.rows(f"{name}.o", attended, self._batch.rows))

    def _feed_forward(self, name: str, x: str) -> str:
        """The gated feed-forward of a layer."""
        graph, linear = self._graph, self._linear
        by_row = graph.integers(-1, 1)
        rows = linear.rows(f"{name}.gate_up", self._rotated(x, self._config.hidden), self._batch.rows)
        gate, up = graph.ops("Split", 2, linear.product(f"{name}.gate_up", rows), axis=-1, num_outputs=2)
        # The scale of up is applied after the next product, where there are fewer numbers.
        gated = graph.op("Mul", self._operators.gelu(rows.scaled(graph, gate, by_row)), up)
        gated_rows = linear.rows(f"{name}.down", self._rotated(gated, self._config.ffn), self._batch.rows)
        out = linear.product(f"{name}.down", gated_rows)
        return gated_rows.scaled_by(graph, rows).scaled(graph, out, by_row)

    def _rotated(self, x: str, width: int, block: int = MATRIX_ROTATION) -> str:
        """x (rows, width) in the basis of the weights: each block multiplied by Hadamard's matrix, its own inverse."""
        if self._weights.format == "float32":
            return x
        graph = self._graph
        if block not in self._hadamard:
            matrix = rotate_blocks(np.eye(block, dtype=np.float32), block)
            self._hadamard[block] = graph.constant(f"hadamard_{block}", matrix)
        blocks = graph.op("Reshape", x, graph.integers(-1, block))
        return graph.op("Reshape", graph.op("MatMul", blocks, self._hadamard[block]), graph.integers(-1, width))

    def norm(self, x: str, name: str) -> str:
        """An RMSNorm by its name."""
        return self._operators.norm(x, self._norm_weights(name), self._config.rms_norm_eps)

    def _norm_weights(self, name: str) -> str:
        return self._graph.constant(name, self._weights.norms[name])

    def head(self, x: str, count: str, *, scaled: bool) -> str:
        """The head's outputs (count, dim) for rows x (count, width); unscaled ones have the right direction alone."""
        rows = self._linear.rows("head", self._rotated(x, self._config.hidden), count)
        product = self._linear.product("head", rows)
        return rows.scaled(self._graph, product, self._graph.integers(-1, 1)) if scaled else product

    def total(self, values: str) -> str:
        """The sum (batch, width) of values (rows, width) over the real tokens of each text.

        It will do instead of the mean: the vector is divided by its length.
        """
        graph, batch = self._graph, self._batch
        by_text = graph.op("Reshape", values, self._attention.by_token)
        real = graph.cast(graph.op("Unsqueeze", batch.real, graph.integers(1)), FLOAT)  # (batch, 1, tokens)
        return graph.op("Squeeze", graph.op("MatMul", real, by_text), graph.integers(1))

    def unit(self, vector: str) -> str:
        """Vectors (batch, dim) divided by their lengths."""
        graph = self._graph
        length = graph.op("ReduceL2", vector, graph.integers(1), keepdims=1)
        return graph.op("Div", vector, graph.op("Max", length, graph.number(_SMALLEST_LENGTH)))

    def given_tokens(self, values: str) -> str:
        """Values (rows, width) as (batch, tokens as given, width)."""
        graph, batch = self._graph, self._batch
        by_text = graph.op("Reshape", values, self._attention.by_token)
        end = graph.vector(batch.given_tokens)
        return graph.op("Slice", by_text, graph.integers(0), end, graph.integers(1))


def rotation(config: EncoderConfig, name: str, theta: float) -> Rotation:
    """The rotary angles of all positions."""
    frequencies = theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    angles = np.arange(longest_padded(config))[:, None] * frequencies
    return Rotation(name, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
