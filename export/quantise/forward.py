"""The model in float32 NumPy, layer by layer, over many texts at once.

kernels/reference.py explains the steps. Here texts are stored end to end, so that the inputs of each matrix are one
array. A layer stops at each of its matrices, since a matrix may have to see the inputs of other texts as well before it
is rounded and multiplies.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ...kernels.config import EncoderConfig
from ...kernels.layout import PANEL
from ...kernels.reference import GELU_CUBIC, GELU_SCALE, INT8_MAX
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..checkpoint.folds import Layer, folded_layer, folded_matrix, folded_norm

Offsets = npt.NDArray[np.int64]  # (texts + 1,): text i is tokens offsets[i] … offsets[i + 1] - 1

# Multiplies inputs (tokens, in_features) by the matrix of this name in a layer: (tokens, out_features).
Product = Callable[[str, Float32], Float32]

# A layer that yields the name of each matrix and its inputs, is sent their product, and returns the stream (tokens,
# hidden) before the feed-forward, and after the layer.
Steps = Generator[tuple[str, Float32], Float32, tuple[Float32, Float32]]

_ELEMENTWISE_ROWS = 512  # tokens at a time where many temporaries are made, so that they stay in cache


def hidden_states(source: Checkpoint, embedded: Float32, offsets: Offsets) -> Iterator[Float32]:
    """The stream (tokens, hidden) of texts, given their rows of the table: before each layer, and after the last."""
    hidden = embedded
    yield hidden
    for i in range(source.config.layers):
        _, hidden = layer_values(source.config, i, folded_layer(source, i), hidden, offsets)
        yield hidden


def embeddings(source: Checkpoint, hidden: Float32, offsets: Offsets) -> Float32:
    """The embeddings (texts, hidden) of what the last layer leaves, not normalised."""
    normed = rms_norm(hidden, folded_norm(source, "final_norm"), source.config.rms_norm_eps)
    return np.asarray(pooled(normed, offsets) @ folded_matrix(source, "head").T)


def layer_values(
    config: EncoderConfig, index: int, layer: Layer, hidden: Float32, offsets: Offsets, product: Product | None = None
) -> tuple[Float32, Float32]:
    """Takes hidden (tokens, hidden) through layer `index`: the stream before the feed-forward, and after the layer.

    product is how inputs are multiplied; by default, with the matrices of the layer.
    """
    steps = layer_steps(config, index, layer, hidden, offsets)
    multiply = product or (lambda name, x: x @ layer[name].T)
    asked = next(steps)
    try:
        while True:
            asked = steps.send(multiply(*asked))
    except StopIteration as end:
        middle, after = end.value
        return middle, after


def layer_steps(config: EncoderConfig, index: int, layer: Layer, hidden: Float32, offsets: Offsets) -> Steps:
    """Layer `index` on hidden (tokens, hidden), from one matrix to the next.

    Between two steps it keeps the stream alone: what is sent is used up, and what is yielded is given away.
    """
    eps = config.rms_norm_eps
    attended = partial(attention, config, index, layer, offsets=offsets)
    out = yield "o", attended((yield "qkv", rms_norm(hidden, layer["input_norm"], eps)))
    middle = hidden + rms_norm(out, layer["post_attention_norm"], eps)
    del out
    out = yield "down", geglu((yield "gate_up", rms_norm(middle, layer["pre_ffn_norm"], eps)))
    return middle, middle + rms_norm(out, layer["post_ffn_norm"], eps)


def rms_norm(x: Float32, multiplier: Float32, eps: float) -> Float32:
    """x (tokens, width) / rms(x) * multiplier."""
    return np.asarray(x / np.sqrt(mean_square(x, eps)) * multiplier, x.dtype)


def mean_square(x: Float32, eps: float) -> Float32:
    """The mean square of each row, plus eps: (tokens, 1)."""
    return np.asarray(np.einsum("tc,tc->t", x, x)[:, None] / np.float32(x.shape[1]) + np.float32(eps))


@dataclass(frozen=True)
class Int8Rounded:
    """Activations (rows, columns) rounded to int8, symmetric: codes, and a scale for each row (rows, 1) float32."""

    codes: npt.NDArray[np.int8]
    scale: Float32

    @classmethod
    def of(cls, x: Float32) -> Int8Rounded:
        """x (rows, columns), rounded."""
        scale = np.maximum(x.max(axis=1), -x.min(axis=1))[:, None] / np.float32(INT8_MAX)
        codes = x / np.where(scale > 0, scale, np.float32(1))
        return cls(np.rint(codes, out=codes).astype(np.int8), scale)

    def values(self) -> Float32:
        """As float32, (rows, columns)."""
        return np.asarray(self.codes * self.scale)

    def gram_matrix(self) -> npt.NDArray[np.float64]:
        """The sum of x xᵀ over rows x, (columns, columns)."""
        x = self.values()
        return np.asarray(x.T @ x, np.float64)


def attention(config: EncoderConfig, index: int, layer: Layer, qkv: Float32, offsets: Offsets) -> Float32:
    """What the attention of layer `index` makes of qkv (tokens, qkv_width): the input of o, (tokens, q_width)."""
    heads, kv_heads, eps = config.heads, config.kv_heads, config.rms_norm_eps
    window = None if config.is_full(index) else config.window
    cos, sin = rotation(config, index, int(np.max(np.diff(offsets))))
    out = np.empty((len(qkv), config.q_width), qkv.dtype)
    for start, end in itertools.pairwise(offsets):
        text = qkv[start:end].reshape(end - start, -1, config.head_dim)
        q, k, v = np.split(text, [heads, heads + kv_heads], axis=1)
        q = rotate(norm_heads(q, layer["q_norm"], eps), cos, sin)
        k = rotate(norm_heads(k, layer["k_norm"], eps), cos, sin)
        shares = attention_shares(q.reshape(end - start, kv_heads, -1, config.head_dim), k, window)
        attended = shares @ v.transpose(1, 0, 2)[:, None]  # (kv_heads, sharing, tokens, head_dim)
        out[start:end] = attended.transpose(2, 0, 1, 3).reshape(end - start, -1)
    return out


def attention_shares(q: Float32, k: Float32, window: int | None) -> Float32:
    """What share of each token goes into each token, (kv_heads, sharing, tokens, tokens), rows summing to 1.

    q is (tokens, kv_heads, sharing, head_dim), with the query heads that share a key/value head side by side, and
    k (tokens, kv_heads, head_dim), both rotated.
    """
    tokens = len(q)
    scores = q.transpose(1, 2, 0, 3) @ k.transpose(1, 2, 0)[:, None]
    if window is not None and tokens > window + 1:
        position = np.arange(tokens)
        scores[:, :, np.abs(position[:, None] - position) > window] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.asarray(scores)


def norm_heads(x: Float32, multiplier: Float32, eps: float) -> Float32:
    """RMSNorm of x (tokens, heads, head_dim) over each head."""
    return rms_norm(x.reshape(-1, x.shape[2]), multiplier, eps).reshape(x.shape)


def rotation(config: EncoderConfig, index: int, tokens: int) -> tuple[Float32, Float32]:
    """Cosine and sine (tokens, head_dim / 2) of the rotary angles of layer `index`."""
    theta = config.rope_theta_full if config.is_full(index) else config.rope_theta_sliding
    half = config.head_dim // 2
    angle = np.arange(tokens)[:, None] * theta ** -(np.arange(half) / half)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x: Float32, cos: Float32, sin: Float32) -> Float32:
    """Rotary position embedding of x (tokens, heads, head_dim); cos and sin have at least as many tokens."""
    cos, sin = cos[: len(x), None], sin[: len(x), None]
    first, second = np.split(x, 2, axis=2)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=2)


def geglu(gate_up: Float32) -> Float32:
    """The input of down, (tokens, ffn), from gate_up's output (tokens, 2 * ffn) in alternating panels."""
    out = np.empty((len(gate_up), gate_up.shape[1] // 2), gate_up.dtype)
    for start in range(0, len(gate_up), _ELEMENTWISE_ROWS):
        rows = slice(start, start + _ELEMENTWISE_ROWS)
        pairs = gate_up[rows].reshape(-1, gate_up.shape[1] // (2 * PANEL), 2, PANEL)
        gate, up = pairs[:, :, 0], pairs[:, :, 1]
        inner = np.float32(GELU_SCALE) * (gate + np.float32(GELU_CUBIC) * (gate * gate * gate))
        np.tanh(inner, out=inner)
        out[rows] = (np.float32(0.5) * gate * (1 + inner) * up).reshape(-1, out.shape[1])
    return out


def pooled(x: Float32, offsets: Offsets) -> Float32:
    """The mean over the tokens of each text: (texts, width)."""
    lengths = np.diff(offsets)[:, None].astype(np.float32)
    return np.asarray(np.add.reduceat(x, offsets[:-1], axis=0) / lengths)
