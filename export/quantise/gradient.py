"""Gradients of the float32 model, in the steps of forward.py backwards: how sensitive an embedding is to the table."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np

from ...kernels.config import EncoderConfig
from ...kernels.layout import PANEL
from ...kernels.reference import GELU_CUBIC, GELU_SCALE
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..checkpoint.folds import Layer, folded_layer, folded_matrix, folded_norm
from . import forward
from .calibration import CalibrationBatch
from .forward import Offsets


def embedding_sensitivity(
    source: Checkpoint, batch: CalibrationBatch, embedded: Float32, advance: Callable[[float], None] = lambda _: None
) -> Float32:
    """Samples of Jᵀu for every token of the calibration texts, given as rows of the table; both (tokens, hidden).

    A small error δ in the rows changes the normalised embedding by Jδ, and its cosine to the right one by |Jδ|² / 2. J
    has as many rows as the embedding is wide. One gradient of u · embedding, for a random u per text, is a sample of
    Jᵀu, and the mean of (Jᵀu)(Jᵀu)ᵀ over texts is that of JᵀJ. advance is called with how many texts are done.
    """
    random = np.random.default_rng(0)
    gradient = np.empty_like(embedded)
    for tokens, offsets in batch.runs():
        step = partial(advance, (len(offsets) - 1) / (2 * source.config.layers + 1))
        gradient[tokens] = _sensitivity(source, offsets, embedded[tokens], random, step)
    return gradient


def _sensitivity(
    source: Checkpoint, offsets: Offsets, embedded: Float32, random: np.random.Generator, advance: Callable[[], None]
) -> Float32:
    """The same of texts whose states fit into memory; advance is called before the layers and twice in each."""
    config = source.config
    states = []
    for state in forward.hidden_states(source, embedded, offsets):
        states.append(state)
        advance()
    gradient = _head_gradient(source, offsets, states.pop(), random)
    for i in reversed(range(config.layers)):
        gradient = layer_gradient(config, i, folded_layer(source, i), states.pop(), offsets, gradient)
        advance()
    return gradient


def _head_gradient(source: Checkpoint, offsets: Offsets, hidden: Float32, random: np.random.Generator) -> Float32:
    """The gradient of u · embedding by the last hidden state (tokens, hidden), for a random u per text."""
    eps, lengths = source.config.rms_norm_eps, np.diff(offsets)
    final_norm, head = folded_norm(source, "final_norm"), folded_matrix(source, "head")
    embedding = forward.embeddings(source, hidden, offsets)
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = embedding / length
    u = random.standard_normal(unit.shape, np.float32)
    u = (u - unit * np.einsum("tc,tc->t", u, unit)[:, None]) / length  # normalisation undoes changes of length
    by_token = np.repeat((u @ head) / lengths[:, None].astype(np.float32), lengths, axis=0)
    return rms_norm_gradient(hidden, final_norm, eps, by_token)


def layer_gradient(
    config: EncoderConfig, index: int, layer: Layer, hidden: Float32, offsets: Offsets, gradient: Float32
) -> Float32:
    """The gradient by the input of a layer, hidden, given that by its output; all (tokens, hidden)."""
    eps = config.rms_norm_eps
    out: dict[str, Float32] = {}  # of each matrix: (tokens, out_features)

    def product(name: str, x: Float32) -> Float32:
        out[name] = x @ layer[name].T
        return out[name]

    middle, _ = forward.layer_values(config, index, layer, hidden, offsets, product)
    of_down = rms_norm_gradient(out["down"], layer["post_ffn_norm"], eps, gradient)
    of_gate_up = _geglu_gradient(out["gate_up"], of_down @ layer["down"])
    gradient = gradient + rms_norm_gradient(middle, layer["pre_ffn_norm"], eps, of_gate_up @ layer["gate_up"])
    of_o = rms_norm_gradient(out["o"], layer["post_attention_norm"], eps, gradient)
    of_qkv = _attention_gradient(config, index, layer, out["qkv"], offsets, of_o @ layer["o"])
    return np.asarray(gradient + rms_norm_gradient(hidden, layer["input_norm"], eps, of_qkv @ layer["qkv"]))


def rms_norm_gradient(x: Float32, multiplier: Float32, eps: float, gradient: Float32) -> Float32:
    """The gradient by x, given that by rms_norm(x, multiplier, eps)."""
    square = forward.mean_square(x, eps)
    scaled = gradient * multiplier
    along = np.einsum("tc,tc->t", scaled, x)[:, None] / (np.float32(x.shape[1]) * square)
    return np.asarray((scaled - x * along) / np.sqrt(square))


def _geglu_gradient(gate_up: Float32, gradient: Float32) -> Float32:
    """The gradient by gate_up (tokens, 2 * ffn), given that by geglu(gate_up) (tokens, ffn)."""
    pairs = gate_up.reshape(len(gate_up), -1, 2, PANEL)
    gate, up = pairs[:, :, 0], pairs[:, :, 1]
    square = gate * gate
    tanh = np.tanh(np.float32(GELU_SCALE) * gate * (1 + np.float32(GELU_CUBIC) * square))
    half = np.float32(0.5) * (1 + tanh)  # gelu(gate) = gate * half
    inner = np.float32(GELU_SCALE) * (1 + np.float32(3 * GELU_CUBIC) * square)
    slope = half + np.float32(0.5) * gate * (1 - tanh * tanh) * inner
    given = gradient.reshape(gate.shape)
    return np.stack([given * up * slope, given * gate * half], axis=2).reshape(gate_up.shape)


def _attention_gradient(
    config: EncoderConfig, index: int, layer: Layer, qkv: Float32, offsets: Offsets, gradient: Float32
) -> Float32:
    """The gradient by qkv (tokens, qkv_width), given that by attention(…, qkv, …) (tokens, q_width)."""
    heads, kv_heads, head_dim, eps = config.heads, config.kv_heads, config.head_dim, config.rms_norm_eps
    window = None if config.is_full(index) else config.window
    cos, sin = forward.rotation(config, index, int(np.max(np.diff(offsets))))
    out = np.empty_like(qkv)
    for start, end in itertools.pairwise(offsets):
        tokens = end - start
        raw_q, raw_k, v = np.split(qkv[start:end].reshape(tokens, -1, head_dim), [heads, heads + kv_heads], axis=1)
        q = forward.rotate(forward.norm_heads(raw_q, layer["q_norm"], eps), cos, sin)
        k = forward.rotate(forward.norm_heads(raw_k, layer["k_norm"], eps), cos, sin)
        shared = (tokens, kv_heads, heads // kv_heads, head_dim)
        queries, given = q.reshape(shared), gradient[start:end].reshape(shared)
        shares = forward.attention_shares(queries, k, window)  # (kv_heads, sharing, tokens, tokens)
        of_v = np.einsum("gsij,igsd->jgd", shares, given, optimize=True)
        of_shares = np.einsum("igsd,jgd->gsij", given, v, optimize=True)
        of_scores = shares * (of_shares - np.einsum("gsij,gsij->gsi", shares, of_shares)[..., None])
        of_q = np.einsum("gsij,jgd->igsd", of_scores, k, optimize=True).reshape(q.shape)
        of_k = np.einsum("gsij,igsd->jgd", of_scores, queries, optimize=True)
        of_q = _norm_heads_gradient(raw_q, layer["q_norm"], eps, forward.rotate(of_q, cos, -sin))
        of_k = _norm_heads_gradient(raw_k, layer["k_norm"], eps, forward.rotate(of_k, cos, -sin))
        out[start:end] = np.concatenate([of_q, of_k, of_v], axis=1).reshape(tokens, -1)
    return out


def _norm_heads_gradient(x: Float32, multiplier: Float32, eps: float, gradient: Float32) -> Float32:
    """The gradient by x (tokens, heads, head_dim) of RMSNorm over each head."""
    rows = (-1, x.shape[2])
    return rms_norm_gradient(x.reshape(rows), multiplier, eps, gradient.reshape(rows)).reshape(x.shape)
