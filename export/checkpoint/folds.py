"""The weights as the engine multiplies them: fused, reordered, and with every constant folded in.

Each fold is exact: the folded model computes the same function as the checkpoint, up to one float32 rounding.
"""

from __future__ import annotations

import numpy as np

from ...kernels.layout import interleave_gate_up
from ...kernels.rotation import rotate_blocks
from .checkpoint import Checkpoint
from .checkpoint_tensors import Float32

# Norm vectors: our name -> transformers' name within a layer.
_NORMS = {
    "input_norm": "input_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_ffn_norm": "pre_feedforward_layernorm",
    "post_ffn_norm": "post_feedforward_layernorm",
}


LAYER_MATRICES = ("qkv", "o", "gate_up", "down")


def folded_layer(checkpoint: Checkpoint, index: int) -> dict[str, Float32]:
    """The norms and matrices of a layer by their names in a model file."""
    name = f"layers.{index}"
    norms = {norm: folded_norm(checkpoint, f"{name}.{norm}") for norm in _NORMS}
    return {**norms, **{matrix: folded_matrix(checkpoint, f"{name}.{matrix}") for matrix in LAYER_MATRICES}}


def rotated_layer(checkpoint: Checkpoint, index: int, block: int, *, values: bool) -> dict[str, Float32]:
    """The same with the columns of matrices rotated in blocks, for inputs that are, and values as they leave `qkv`.

    Attention only averages values, so that the inputs of `o` are then rotated at no cost: QuaRot, arXiv 2404.00456.
    """
    layer = folded_layer(checkpoint, index)
    layer.update({matrix: rotate_blocks(layer[matrix], block) for matrix in LAYER_MATRICES})
    if values:
        kv_width = checkpoint.config.kv_width
        layer["qkv"][-kv_width:] = rotate_blocks(np.ascontiguousarray(layer["qkv"][-kv_width:].T), block).T
    return layer


def folded_embedding(checkpoint: Checkpoint, start: int, stop: int) -> Float32:
    """Rows start … stop - 1 of the embedding table, (rows, hidden), times sqrt(hidden) rounded as transformers does."""
    multiplier = np.float32(checkpoint.config.embedding_multiplier)
    return np.asarray(checkpoint.weights.read_rows("embed_tokens.weight", start, stop) * multiplier)


def folded_norm(checkpoint: Checkpoint, name: str) -> Float32:
    """The multiplier of an RMSNorm, (length,): 1 + w, and for q_norm also the attention scale."""
    layer, _, kind = name.rpartition(".")
    source = f"{layer}.{_NORMS[kind]}.weight" if layer else "norm.weight"
    scale = checkpoint.attention_scale if kind == "q_norm" else 1.0
    return np.asarray((1.0 + checkpoint.weights.read(source).astype(np.float64)) * scale, np.float32)


def folded_matrix(checkpoint: Checkpoint, name: str) -> Float32:
    """The matrix `name` of kernels/layout.py, (out_features, in_features)."""
    layer, _, kind = name.rpartition(".")

    def read(part: str) -> Float32:
        return checkpoint.weights.read(f"{layer}.{part}.weight")

    if kind == "qkv":
        return np.concatenate([read("self_attn.q_proj"), read("self_attn.k_proj"), read("self_attn.v_proj")])
    if kind == "o":
        return read("self_attn.o_proj")
    if kind == "gate_up":
        return np.asarray(interleave_gate_up(read("mlp.gate_proj"), read("mlp.up_proj")))
    if kind == "down":
        return read("mlp.down_proj")
    return _head(checkpoint)


def _head(checkpoint: Checkpoint) -> Float32:
    """The dense layers after pooling as one matrix: they are linear, and nothing stands between them."""
    product = np.eye(checkpoint.config.hidden)
    for dense in checkpoint.dense:
        product = dense.read("linear.weight").astype(np.float64) @ product
    return product.astype(np.float32)
