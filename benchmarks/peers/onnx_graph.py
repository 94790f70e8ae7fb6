"""The encoder as an ONNX graph of the fused operators that ONNX Runtime is fastest with.

Nothing is held back from this peer: projections are fused, constants and the dense head folded, the table has 8 bits
where the matrices have fewer than 32. Texts in one call have equal length, so there is no padding mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...export.checkpoint.folds import folded_embedding, folded_matrix, folded_norm
from ...export.onnx.encoder import rotation
from ...export.onnx.export import IR_VERSION
from ...export.onnx.graph import CONTRIB, Graph, packed_nibbles
from ...export.onnx.operators import Operators, Rotation, opsets

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ...export.checkpoint.checkpoint import Checkpoint
    from ...kernels.config import EncoderConfig

    Array: TypeAlias = npt.NDArray[Any]

Precision = Literal["float32", "int8", "int4"]

IDS, EMBEDDINGS = "ids", "embeddings"  # input int64 (batch, tokens), output float32 (batch, hidden)
DATA_FILE = "model.data"
EXTERNAL_BYTES = 1024  # larger tensors go into a file of their own, since a model file ends at 2 GB

INT8_LARGEST = 127
INT4_BLOCK = 32  # inputs that share a scale: the finest that MatMulNBits has, and the most exact
INT4_OFFSET = 8  # codes -8 … 7 are stored as 0 … 15
INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level: the fastest


@dataclass
class PeerGraph(Graph):
    """Operations and constants of one precision."""

    precision: Precision = "float32"


@dataclass(frozen=True)
class Shared:
    """What all layers use, computed once: names of values in the graph.

    Attributes:
        operators: those of ONNX Runtime, as our own exporter writes them.
        rope_sliding, rope_full: the rotary angles.
        window_bias: (tokens, 1, tokens), 0 inside the window of a sliding layer and the lowest float outside.
        by_head, by_row: shapes of scores, (batch, tokens, heads, tokens) and (batch, tokens * heads, tokens).
    """

    operators: Operators
    rope_sliding: Rotation
    rope_full: Rotation
    window_bias: str
    by_head: str
    by_row: str


def write_onnx(checkpoint: Checkpoint, precision: Precision, path: Path) -> None:
    """Writes the graph to `path` and its large tensors to DATA_FILE beside it."""
    config = checkpoint.config
    graph = PeerGraph(precision=precision)
    shared = _shared(graph, config)
    hidden = _embedding(graph, checkpoint)
    normed = _norm(graph, checkpoint, hidden, "layers.0.input_norm", shared)
    for layer in range(config.layers):
        normed, hidden = _layer(graph, checkpoint, layer, normed, hidden, shared)
    pooled = graph.op("ReduceMean", normed, graph.integers(1), keepdims=0)
    vector = _linear(graph, pooled, "head", folded_matrix(checkpoint, "head"))
    length = graph.op("ReduceL2", vector, graph.integers(1), keepdims=1)
    graph.nodes.append(helper.make_node("Div", [vector, length], [EMBEDDINGS]))
    _save(graph, config, path)


def _embedding(graph: PeerGraph, checkpoint: Checkpoint) -> str:
    """Rows of the table (batch, tokens, hidden)."""
    table = folded_embedding(checkpoint, 0, checkpoint.config.vocab)
    if graph.precision == "float32":
        return graph.op("Gather", graph.constant("embedding", table), IDS)
    codes, scales = _int8(table)
    rows = graph.op("Gather", graph.constant("embedding", codes), IDS)
    row_scales = graph.op("Gather", graph.constant("embedding.scale", scales[:, None]), IDS)
    return graph.op("Mul", graph.op("Cast", rows, to=TensorProto.FLOAT), row_scales)


def _layer(
    graph: PeerGraph, checkpoint: Checkpoint, layer: int, normed: str, hidden: str, shared: Shared
) -> tuple[str, str]:
    """One layer: (normed, hidden) in, (hidden after the next layer's norm, hidden) out; (batch, tokens, hidden)."""
    config, name, read = checkpoint.config, f"layers.{layer}", checkpoint.weights.read
    qkv = _linear(graph, normed, f"{name}.qkv", folded_matrix(checkpoint, f"{name}.qkv"))
    attended = _attention(graph, checkpoint, layer, qkv, shared)
    output = _linear(graph, attended, f"{name}.o", folded_matrix(checkpoint, f"{name}.o"))
    output = _norm(graph, checkpoint, output, f"{name}.post_attention_norm", shared)
    normed, hidden = _add_and_norm(graph, config, output, hidden, _gamma(graph, checkpoint, f"{name}.pre_ffn_norm"))
    gate_up = np.concatenate([read(f"{name}.mlp.gate_proj.weight"), read(f"{name}.mlp.up_proj.weight")])
    gate, up = graph.ops("Split", 2, _linear(graph, normed, f"{name}.gate_up", gate_up), axis=-1, num_outputs=2)
    gated = graph.op("Mul", shared.operators.gelu(gate), up)
    output = _linear(graph, gated, f"{name}.down", folded_matrix(checkpoint, f"{name}.down"))
    output = _norm(graph, checkpoint, output, f"{name}.post_ffn_norm", shared)
    following = f"layers.{layer + 1}.input_norm" if layer + 1 < config.layers else "final_norm"
    return _add_and_norm(graph, config, output, hidden, _gamma(graph, checkpoint, following))


def _attention(graph: Graph, checkpoint: Checkpoint, layer: int, qkv: str, shared: Shared) -> str:
    """Attention (batch, tokens, q_width) over qkv (batch, tokens, q_width + 2 * kv_width).

    All query heads share one key/value head, so queries are one matrix of tokens * heads rows: this was measured
    faster than the fused MultiHeadAttention, which wants a copy of the keys for every head.
    """
    config, full = checkpoint.config, checkpoint.config.is_full(layer)
    widths = graph.integers(config.q_width, config.kv_width, config.kv_width)
    query, key, value = graph.ops("Split", 3, qkv, widths, axis=-1)
    rope = shared.rope_full if full else shared.rope_sliding
    query = _rotated(graph, checkpoint, query, config.heads, f"layers.{layer}.q_norm", rope, shared)
    key = _rotated(graph, checkpoint, key, config.kv_heads, f"layers.{layer}.k_norm", rope, shared)
    rows = graph.op("Reshape", query, graph.integers(0, -1, config.head_dim))
    scores = shared.operators.scores(rows, key)
    if not full:
        biased = graph.op("Add", graph.op("Reshape", scores, shared.by_head), shared.window_bias)
        scores = graph.op("Reshape", biased, shared.by_row)
    attended = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    return graph.op("Reshape", attended, graph.integers(0, -1, config.q_width))


def _rotated(
    graph: Graph, checkpoint: Checkpoint, projected: str, heads: int, name: str, rope: Rotation, shared: Shared
) -> str:
    """Norm over each head and rotary embedding of queries or keys (batch, tokens, heads * head_dim)."""
    head_dim = checkpoint.config.head_dim
    by_head = graph.op("Reshape", projected, graph.integers(0, 0, heads, head_dim))
    normed = graph.op(
        "Reshape", _norm(graph, checkpoint, by_head, name, shared), graph.integers(0, 0, heads * head_dim)
    )
    return shared.operators.rotate(normed, heads, rope)


def _norm(graph: Graph, checkpoint: Checkpoint, x: str, name: str, shared: Shared) -> str:
    """An RMSNorm by its name."""
    return shared.operators.norm(x, _gamma(graph, checkpoint, name), checkpoint.config.rms_norm_eps)


def _linear(graph: PeerGraph, inputs: str, name: str, weight: Array) -> str:
    """Inputs (…, in) @ weight (out, in).T."""
    if graph.precision == "float32":
        return graph.op("MatMul", inputs, graph.constant(name, weight.T))
    if graph.precision == "int8":
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


def _gamma(graph: Graph, checkpoint: Checkpoint, name: str) -> str:
    return graph.constant(name, folded_norm(checkpoint, name))


def _add_and_norm(graph: Graph, config: EncoderConfig, output: str, hidden: str, gamma: str) -> tuple[str, str]:
    """RMSNorm of the sum, and the sum itself."""
    normed, _, _, total = graph.ops(
        "SkipSimplifiedLayerNormalization", 4, output, hidden, gamma, domain=CONTRIB, epsilon=config.rms_norm_eps
    )
    return normed, total


def _shared(graph: Graph, config: EncoderConfig) -> Shared:
    zero, one = graph.integer(0), graph.integer(1)
    tokens = graph.op("Gather", graph.op("Shape", IDS), one)
    position = graph.op("Range", zero, tokens, one)
    rows, columns = (graph.op("Unsqueeze", position, graph.integers(axis)) for axis in (1, 0))
    distance = graph.op("Abs", graph.op("Sub", rows, columns))  # (tokens, tokens)
    outside = graph.op("Greater", distance, graph.integer(config.window))
    lowest = graph.number(float(np.finfo(np.float32).min))
    bias = graph.op("Where", outside, lowest, graph.number(0))
    length = graph.op("Unsqueeze", tokens, graph.integers(0))
    return Shared(
        operators=Operators(graph, "onnxruntime", tokens),
        rope_sliding=rotation(config, "rope_sliding", config.rope_theta_sliding),
        rope_full=rotation(config, "rope_full", config.rope_theta_full),
        window_bias=graph.op("Unsqueeze", bias, graph.integers(1)),
        by_head=graph.op("Concat", graph.integers(0, -1, config.heads), length, axis=0),
        by_row=graph.op("Concat", graph.integers(0, -1), length, axis=0),
    )


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
