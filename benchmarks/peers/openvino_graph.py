"""The encoder as an OpenVINO graph, in the patterns that its CPU plugin fuses: RMSNorm, rotary embedding, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from ...export.checkpoint.checkpoint import Checkpoint
from ...export.checkpoint.folds import folded_embedding, folded_matrix, folded_norm
from ...kernels.config import EncoderConfig

END = 2**31 - 1  # where a slice without an end ends
SMALLEST_SQUARE = 1e-12  # a vector of zeros stays one

# Names of operations, for settings that treat some of them apart; a layer's matrices are `layers.0.q` and the like.
HEAD, UNIT = "head", "unit"
IDS = "ids"  # input int64 (batch, tokens)


def build_model(checkpoint: Checkpoint) -> Any:
    """The float32 model: `ids` in, unit vectors (batch, hidden) out."""
    config = checkpoint.config
    ids = ops.parameter([-1, -1], np.int64, name=IDS)
    table = ops.constant(folded_embedding(checkpoint, 0, config.vocab))
    hidden = ops.gather(table, ids, _integers(0))
    tokens = ops.gather(ops.shape_of(ids), _integers(1), _integers(0))
    ropes = {full: _rope(config, tokens, full) for full in (False, True)}
    bias = _window_bias(config, tokens)
    for layer in range(config.layers):
        full = config.is_full(layer)
        hidden = _layer(checkpoint, layer, hidden, ropes[full], _float(0) if full else bias)
    normed = _norm(checkpoint, hidden, "final_norm")
    pooled = ops.reduce_mean(normed, _integers(1), keep_dims=False)
    vector = _linear(pooled, HEAD, folded_matrix(checkpoint, "head"))
    unit = ops.normalize_l2(vector, _integers(1), SMALLEST_SQUARE, "max", name=UNIT)
    return openvino.Model([unit], [ids], "encoder")


def _layer(checkpoint: Checkpoint, layer: int, hidden: Any, rope: tuple[Any, Any], bias: Any) -> Any:
    """One layer: hidden (batch, tokens, hidden) in and out."""
    name, read = f"layers.{layer}", checkpoint.weights.read
    normed = _norm(checkpoint, hidden, f"{name}.input_norm")
    attended = _attention(checkpoint, name, normed, rope, bias)
    output = _linear(attended, f"{name}.o", folded_matrix(checkpoint, f"{name}.o"))
    hidden = ops.add(hidden, _norm(checkpoint, output, f"{name}.post_attention_norm"))
    normed = _norm(checkpoint, hidden, f"{name}.pre_ffn_norm")
    gate = ops.gelu(_linear(normed, f"{name}.gate", read(f"{name}.mlp.gate_proj.weight")), "tanh")
    gated = ops.multiply(gate, _linear(normed, f"{name}.up", read(f"{name}.mlp.up_proj.weight")))
    output = _linear(gated, f"{name}.down", read(f"{name}.mlp.down_proj.weight"))
    return ops.add(hidden, _norm(checkpoint, output, f"{name}.post_ffn_norm"))


def _attention(checkpoint: Checkpoint, name: str, normed: Any, rope: tuple[Any, Any], bias: Any) -> Any:
    """Attention over normed (batch, tokens, hidden); (batch, tokens, q_width)."""
    config, read = checkpoint.config, checkpoint.weights.read

    def heads(kind: str, count: int) -> Any:
        projected = _linear(normed, f"{name}.{kind}", read(f"{name}.self_attn.{kind}_proj.weight"))
        split = ops.reshape(projected, _integers(0, 0, count, config.head_dim), True)
        if kind != "v":
            split = _norm(checkpoint, split, f"{name}.{kind}_norm")
        moved = ops.transpose(split, _integers(0, 2, 1, 3))  # (batch, heads, tokens, head_dim)
        return moved if kind == "v" else _rotated(config, moved, rope)

    query, key, value = heads("q", config.heads), heads("k", config.kv_heads), heads("v", config.kv_heads)
    group = config.heads // config.kv_heads
    key, value = (_repeated(config, keys, group) for keys in (key, value))
    attended = ops.scaled_dot_product_attention(query, key, value, bias, _float(1))  # scaled in q_norm already
    joined = ops.transpose(attended, _integers(0, 2, 1, 3))
    return ops.reshape(joined, _integers(0, 0, config.q_width), True)


def _repeated(config: EncoderConfig, keys: Any, group: int) -> Any:
    """Keys or values (batch, kv_heads, tokens, head_dim) → (batch, heads, tokens, head_dim), as transformers does."""
    one_each = ops.unsqueeze(keys, _integers(2))
    shape = _integers(1, 1, group, 1, 1)
    return ops.reshape(
        ops.broadcast(one_each, shape, broadcast_spec="BIDIRECTIONAL"),
        _integers(0, config.heads, -1, config.head_dim),
        True,
    )


def _rotated(config: EncoderConfig, heads: Any, rope: tuple[Any, Any]) -> Any:
    """Rotary embedding, rotate-half, of heads (batch, heads, tokens, head_dim)."""
    cosines, sines = rope
    half = config.head_dim // 2
    first = ops.slice(heads, _integers(0), _integers(half), _integers(1), _integers(3))
    second = ops.slice(heads, _integers(half), _integers(END), _integers(1), _integers(3))
    turned = ops.concat([ops.multiply(second, _float(-1)), first], -1)
    return ops.add(ops.multiply(heads, cosines), ops.multiply(turned, sines))


def _rope(config: EncoderConfig, tokens: Any, full: bool) -> tuple[Any, Any]:
    """Cosines and sines (1, 1, tokens, head_dim)."""
    theta = config.rope_theta_full if full else config.rope_theta_sliding
    frequencies = theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    angles = np.arange(config.max_tokens)[:, None] * np.concatenate([frequencies, frequencies])
    tables = (np.cos(angles), np.sin(angles))
    rows = [
        ops.slice(ops.constant(table.astype(np.float32)), _integers(0), tokens, _integers(1), _integers(0))
        for table in tables
    ]
    cosines, sines = (ops.unsqueeze(row, _integers(0, 1)) for row in rows)
    return cosines, sines


def _window_bias(config: EncoderConfig, tokens: Any) -> Any:
    """(1, 1, tokens, tokens): 0 inside the window of a sliding layer, minus infinity outside."""
    count = ops.squeeze(tokens, _integers(0))
    position = ops.range(_integer(0), count, _integer(1), "i64")
    distance = ops.abs(ops.subtract(ops.unsqueeze(position, _integers(1)), ops.unsqueeze(position, _integers(0))))
    bias = ops.select(ops.greater(distance, _integer(config.window)), _float(-np.inf), _float(0))
    return ops.unsqueeze(bias, _integers(0, 1))


def _norm(checkpoint: Checkpoint, hidden: Any, name: str) -> Any:
    """RMSNorm over the last axis."""
    square = ops.reduce_mean(ops.power(hidden, _float(2)), _integers(-1), keep_dims=True)
    root = ops.sqrt(ops.add(square, _float(checkpoint.config.rms_norm_eps)))
    normed = ops.multiply(hidden, ops.divide(_float(1), root))
    return ops.multiply(normed, ops.constant(folded_norm(checkpoint, name)))


def _linear(inputs: Any, name: str, weight: Any) -> Any:
    """Inputs (…, in) @ weight (out, in).T."""
    return ops.matmul(inputs, ops.constant(weight), False, True, name=name)


def _integers(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))


def _integer(value: int) -> Any:
    return ops.constant(value, np.int64)


def _float(value: float) -> Any:
    return ops.constant(value, np.float32)
