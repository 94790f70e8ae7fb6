"""Changes of basis and of scale after which matrices and their inputs round to integers with less error.

- The values of a head may be rotated, as attention only averages them, and between a norm and the matrix after it each
  channel may be divided by a number that the matrix multiplies back: QuaRot, arXiv 2404.00456, and SmoothQuant, arXiv
  2211.10438. Both are folded into the weights.
- The inputs of `down` are rotated as the model runs: a Hadamard matrix spreads an outlier over a block of 64.
"""

from __future__ import annotations

import numpy as np

from ...kernels.config import EncoderConfig
from ...kernels.rotation import rotate_blocks
from ..forward import Layer, int8_rounded
from ..weights import Float32

# Candidates for the channels after a norm: powers of the largest input over the largest weight of a channel.
_EXPONENTS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75)
_SMALLEST = 1e-5  # largest magnitudes below this count as this


def rotate_values(config: EncoderConfig, layer: Layer) -> Layer:
    """The same layer with the values of each head rotated, in blocks."""
    qkv = layer["qkv"].copy()
    values = qkv[-config.kv_width :]
    qkv[-config.kv_width :] = rotate_blocks(np.ascontiguousarray(values.T)).T
    return {**layer, "qkv": qkv, "o": rotate_blocks(layer["o"])}


def smooth(layer: Layer, norm: str, matrix: str, x: Float32) -> Layer:
    """The same layer with the channels between a norm and its matrix, of inputs x (rows, columns), scaled for the best.

    Judged by the error of outputs with inputs and weights in int8.
    """
    weights = layer[matrix]
    largest_x, largest_w = (np.maximum(np.abs(each).max(axis=0), _SMALLEST) for each in (x, weights))
    exact = x @ weights.T
    best, least = np.ones_like(largest_x), np.inf
    for exponent in _EXPONENTS:
        scale = (largest_x / largest_w) ** np.float32(exponent)
        error = float(np.square(int8_rounded(x / scale) @ int8_rounded(weights * scale).T - exact).sum())
        if error < least:
            best, least = scale, error
    return {**layer, norm: layer[norm] / best, matrix: weights * best}
