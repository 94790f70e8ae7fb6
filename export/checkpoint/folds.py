"""The weights as the engine multiplies them: fused, reordered, and with every constant folded in.

Each fold is exact: the folded model computes the same function as the checkpoint, up to one float32 rounding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...kernels.layout import interleave_gate_up
from ...kernels.rotation import rotate_blocks
from .checkpoint import Checkpoint
from .checkpoint_tensors import Float32

Layer = dict[str, Float32]  # the tensors of a layer in file order: "input_norm", "qkv" (out_features, in_features), …

# The tensors of a layer in file order: our name -> transformers' names within the layer.
_SOURCES = {
    "input_norm": ("input_layernorm",),
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "q_norm": ("self_attn.q_norm",),
    "k_norm": ("self_attn.k_norm",),
    "o": ("self_attn.o_proj",),
    "post_attention_norm": ("post_attention_layernorm",),
    "pre_ffn_norm": ("pre_feedforward_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
    "post_ffn_norm": ("post_feedforward_layernorm",),
}


def folded_layer(checkpoint: Checkpoint, index: int) -> Layer:
    """The norms and matrices of a layer."""
    return {
        name: (folded_norm if name.endswith("norm") else folded_matrix)(checkpoint, f"layers.{index}.{name}")
        for name in _SOURCES
    }


def rotated_layer(checkpoint: Checkpoint, index: int, block: int, *, values: bool) -> Layer:
    """The same with the columns of matrices rotated in blocks, and if asked for, the values that leave `qkv`.

    Attention only averages values, so rotated values rotate the inputs of `o` at no cost: QuaRot, arXiv 2404.00456.
    """
    layer = folded_layer(checkpoint, index)
    layer.update({name: rotate_blocks(tensor, block) for name, tensor in layer.items() if tensor.ndim > 1})
    if values:
        kv_width = checkpoint.config.kv_width
        layer["qkv"][-kv_width:] = rotate_blocks(np.ascontiguousarray(layer["qkv"][-kv_width:].T), block).T
    return layer


def folded_embedding(checkpoint: Checkpoint, start: int, stop: int) -> Float32:
    """Rows start … stop - 1 of the embedding table, (rows, hidden), times sqrt(hidden) rounded as transformers does."""
    multiplier = np.float32(checkpoint.config.embedding_multiplier)
    return np.asarray(checkpoint.weights.read_rows("embed_tokens.weight", start, stop) * multiplier)


def folded_rows(checkpoint: Checkpoint, ids: npt.NDArray[np.int32]) -> Float32:
    """The same of the tokens ids (tokens,): (tokens, hidden)."""
    used, positions = np.unique(ids, return_inverse=True)
    return np.concatenate([folded_embedding(checkpoint, i, i + 1) for i in used])[positions]


def folded_norm(checkpoint: Checkpoint, name: str) -> Float32:
    """The multiplier of an RMSNorm, (length,): 1 + w, and for q_norm also the attention scale."""
    layer, _, kind = name.rpartition(".")
    source = f"{layer}.{_SOURCES[kind][0]}.weight" if layer else "norm.weight"
    scale = checkpoint.attention_scale if kind == "q_norm" else 1.0
    return np.asarray((1.0 + checkpoint.weights.read(source).astype(np.float64)) * scale, np.float32)


def folded_matrix(checkpoint: Checkpoint, name: str) -> Float32:
    """The matrix `name` of kernels/layout.py, (out_features, in_features)."""
    layer, _, kind = name.rpartition(".")
    if name == "head":
        return _head(checkpoint)
    parts = [checkpoint.weights.read(f"{layer}.{source}.weight") for source in _SOURCES[kind]]
    if kind == "gate_up":
        return np.asarray(interleave_gate_up(*parts))
    return np.concatenate(parts)


def _head(checkpoint: Checkpoint) -> Float32:
    """The dense layers after pooling as one matrix: they are linear, with nothing between them."""
    product = np.eye(checkpoint.config.hidden)
    for dense in checkpoint.dense:
        product = dense.read("linear.weight").astype(np.float64) @ product
    return product.astype(np.float32)
