"""The model in float64 NumPy: slow, readable, and what every other backend is tested against.

Read it from `ReferenceBackend.encode` downwards for the forward pass in model order. The architecture is Gemma 3
(arXiv 2503.19786) made bidirectional, with a pooled head (EmbeddingGemma, arXiv 2509.20354).

Weights are the stored levels times their scales. With `quantize_activations` (the default) the inputs of an integer
matrix are rotated and rounded to int8 per token: this is what the integer backends should compute. Without it, this is
the model that the file stores; the difference between the two is what int8 activations cost.
The integer backends round in float32. A value within about 1e-6 of a rounding tie may therefore get a code that differs
by one from the code here. All other differences are float32 rounding.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .batch import check_batch, check_finite, finish_vectors
from .embedding_rows import EmbeddingRows
from .layout import PANEL, unpack_matrix
from .rotation import rotate_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .config import EncoderConfig
    from .layout import Tensor

F64 = npt.NDArray[np.float64]

INT8_MAX = 127  # codes are symmetric: -127 … 127

GELU_SCALE = np.sqrt(2 / np.pi)  # gelu by tanh: Hendrycks and Gimpel, arXiv 1606.08415, section 2
GELU_CUBIC = 0.044715


def rms_norm(x: F64, multiplier: F64, eps: float) -> F64:
    """RMSNorm over the last axis (Zhang and Sennrich, arXiv 1910.07467): x / rms(x) * multiplier, which is 1 + w."""
    return np.asarray(x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * multiplier)


def quantize_rows(x: F64) -> tuple[F64, F64]:
    """int8 codes (rows, k) as float64, and the scale (rows, 1) of each row: x is about codes * scale.

    Symmetric: the largest magnitude of a row becomes ±127, ties round to even, a row of zeros stays zero.
    """
    largest = np.max(np.abs(x), axis=-1, keepdims=True)  # (rows, 1)
    codes = np.rint(x * (INT8_MAX / np.where(largest > 0, largest, np.inf)))
    return codes, largest / INT8_MAX


def rotate(x: F64, theta: float) -> F64:
    """Rotary position embedding of x (tokens, heads, head_dim): Su et al., arXiv 2104.09864, in the rotate-half form.

    Element i of the first half and of the second half are a point that turns by position * theta^(-2i / head_dim).
    """
    tokens, _, head_dim = x.shape
    frequency = theta ** -(np.arange(0, head_dim, 2) / head_dim)  # (head_dim / 2,)
    angle = np.arange(tokens)[:, None, None] * frequency  # (tokens, 1, head_dim / 2)
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(scores: F64) -> F64:
    """Rows of exp(scores) that sum to 1; subtracting the maximum changes nothing but the range."""
    powers = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return np.asarray(powers / np.sum(powers, axis=-1, keepdims=True))


def attend(q: F64, k: F64, v: F64, window: int | None) -> F64:
    """Bidirectional attention of q (tokens, heads, head_dim) over k and v (tokens, kv_heads, head_dim).

    Token i attends to token j iff |i - j| <= window; if window is None, to every token. Consecutive query heads share a
    key/value head. q includes the attention scale. Returns (tokens, heads, head_dim).
    """
    tokens, heads, _ = q.shape
    sharing = heads // k.shape[1]  # query heads per key/value head
    position = np.arange(tokens)
    distance = np.abs(position[:, None] - position)  # (tokens, tokens)
    seen = distance <= (tokens if window is None else window)
    out = np.empty_like(q)
    for head in range(heads):
        keys, values = k[:, head // sharing], v[:, head // sharing]  # (tokens, head_dim)
        scores = np.where(seen, q[:, head] @ keys.T, -np.inf)  # (tokens, tokens)
        out[:, head] = softmax(scores) @ values
    return out


def gelu(x: F64) -> F64:
    """GELU in the tanh approximation that the model was trained with: about x times the normal distribution of x."""
    return np.asarray(0.5 * x * (1 + np.tanh(GELU_SCALE * (x + GELU_CUBIC * x**3))))


class ReferenceBackend:
    """The `Backend` of NumPy float64. Matrices are unpacked when first used and kept: 8 bytes a weight.

    Args:
        config, tensors: as `read_model_file` gives them, which has checked them.
        quantize_activations: whether the inputs of integer matrices are rounded to int8; see the module.
    """

    name = "reference"
    isa = "numpy"
    threads = 1

    def __init__(
        self, config: EncoderConfig, tensors: Mapping[str, Tensor], *, quantize_activations: bool = True
    ) -> None:
        self.config = config
        self.tensors = tensors
        self.quantize_activations = quantize_activations
        self._rows = EmbeddingRows(tensors, config.hidden)
        self._matrices: dict[str, F64] = {}

    def encode(
        self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, normalize: bool
    ) -> npt.NDArray[np.float32]:
        """Embeds text i, which is ids[offsets[i]:offsets[i + 1]]: float32 (texts, dim). See Backend.encode."""
        ids, offsets = check_batch(self.config, ids, offsets, dim)
        out = np.empty((len(offsets) - 1, dim))
        with np.errstate(all="ignore"):  # what damaged weights give is not finite to the end
            for text, (start, end) in enumerate(itertools.pairwise(offsets)):
                out[text] = self.embed(ids[start:end])[:dim]
        return finish_vectors(out, normalize)

    def embed(self, ids: npt.NDArray[np.int32]) -> F64:
        """The embedding (hidden,) of one text, not normalised."""
        states = self.final_states(ids)
        pooled = np.mean(states, axis=0, keepdims=True)  # (1, hidden): over all tokens, <bos> and <eos> included
        return np.asarray(self.linear("head", pooled)[0])

    def encode_tokens(self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """States (tokens, hidden) of all tokens, end to end."""
        ids, offsets = check_batch(self.config, ids, offsets, self.config.hidden)
        out = np.empty((len(ids), self.config.hidden), np.float32)
        with np.errstate(all="ignore"):
            for start, end in itertools.pairwise(offsets):
                out[start:end] = self.final_states(ids[start:end])
        return check_finite(out, offsets)

    def final_states(self, ids: npt.NDArray[np.int32]) -> F64:
        """The residual stream (tokens, hidden) of one text after the last layer and the final norm."""
        *_, hidden = self.hidden_states(ids)
        return rms_norm(hidden, self._vector("final_norm"), self.config.rms_norm_eps)

    def hidden_states(self, ids: npt.NDArray[np.int32]) -> Iterator[F64]:
        """The residual stream (tokens, hidden) of one text: the embedding rows, then what each layer leaves."""
        state = self._rows.values(ids).astype(np.float64)
        yield state
        for layer in range(self.config.layers):
            state = self._attention_block(layer, state)
            state = self._feed_forward_block(layer, state)
            yield state

    def _attention_block(self, layer: int, hidden: F64) -> F64:
        """Residual + attention, with a norm before and a norm after it. (tokens, hidden) to the same."""
        config, name, tokens = self.config, f"layers.{layer}", len(hidden)
        normed = rms_norm(hidden, self._vector(f"{name}.input_norm"), config.rms_norm_eps)
        qkv = self.linear(f"{name}.qkv", normed).reshape(tokens, -1, config.head_dim)
        q, k, v = np.split(qkv, [config.heads, config.heads + config.kv_heads], axis=1)  # (tokens, heads, head_dim)
        q = rms_norm(q, self._vector(f"{name}.q_norm"), config.rms_norm_eps)
        k = rms_norm(k, self._vector(f"{name}.k_norm"), config.rms_norm_eps)
        full = config.is_full(layer)
        theta = config.rope_theta_full if full else config.rope_theta_sliding
        attended = attend(rotate(q, theta), rotate(k, theta), v, None if full else config.window)
        out = self.linear(f"{name}.o", attended.reshape(tokens, -1))
        return hidden + rms_norm(out, self._vector(f"{name}.post_attention_norm"), config.rms_norm_eps)

    def _feed_forward_block(self, layer: int, hidden: F64) -> F64:
        """Residual + GeGLU (Shazeer, arXiv 2002.05202), with a norm before and a norm after it."""
        config, name = self.config, f"layers.{layer}"
        normed = rms_norm(hidden, self._vector(f"{name}.pre_ffn_norm"), config.rms_norm_eps)
        pairs = self.linear(f"{name}.gate_up", normed).reshape(len(hidden), -1, 2, PANEL)  # alternating panels
        gated = gelu(pairs[:, :, 0]) * pairs[:, :, 1]  # (tokens, ffn / 16, 16)
        out = self.linear(f"{name}.down", gated.reshape(len(hidden), -1))
        return hidden + rms_norm(out, self._vector(f"{name}.post_ffn_norm"), config.rms_norm_eps)

    def linear(self, name: str, x: F64) -> F64:
        """Multiplies x (tokens, in_features) by the matrix `name`, transposed: (tokens, out_features)."""
        if name not in self._matrices:
            weights = unpack_matrix(self.tensors, name).astype(np.float64)
            scale = self.tensors.get(f"{name}.scale")  # (out_features,), none for float32 weights
            self._matrices[name] = weights if scale is None else weights * scale[:, None].astype(np.float64)
        if f"{name}.scale" in self.tensors:
            x = rotate_blocks(x)
            if self.quantize_activations:
                codes, scale = quantize_rows(x)
                x = codes * scale
        return np.asarray(x @ self._matrices[name].T)

    def _vector(self, name: str) -> F64:
        return self.tensors[name].astype(np.float64)
