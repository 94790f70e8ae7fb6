"""Changes of basis and of scale after which matrices and their inputs round to integers with less error.

- The values of a head may be rotated, as attention only averages them, and between a norm and the matrix after it each
  channel may be divided by a number that the matrix multiplies back: QuaRot, arXiv 2404.00456, and SmoothQuant, arXiv
  2211.10438. Both are folded into the weights.
- The inputs of `down` are rotated as the model runs: a Hadamard matrix spreads an outlier over a block of 64.
"""

from __future__ import annotations

import numpy as np

from ...kernels.config import EncoderConfig
from ..forward import Layer
from ..weights import Float32

BLOCK = 64  # divides every width of a model (kernels/config.py, DIMENSION_GRAIN)

# Candidates for the channels after a norm: powers of the largest input over the largest weight of a channel.
_EXPONENTS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75)
_INT8_MAX = 127
_SMALLEST = 1e-5  # largest magnitudes below this count as this


def hadamard(size: int) -> Float32:
    """The orthogonal matrix of Sylvester's construction, (size, size), symmetric; size is a power of 2."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.float32(np.sqrt(size)))


def rotated(x: Float32, rotation: Float32) -> Float32:
    """x (rows, columns) with each block of columns multiplied by the rotation."""
    return np.asarray((x.reshape(-1, len(rotation)) @ rotation).reshape(x.shape))


def rotate_values(config: EncoderConfig, layer: Layer) -> Layer:
    """The same layer with the values of each head rotated, in blocks."""
    rotation = hadamard(BLOCK)
    qkv = layer["qkv"].copy()
    values = qkv[-config.kv_width :]
    qkv[-config.kv_width :] = rotated(np.ascontiguousarray(values.T), rotation).T
    return {**layer, "qkv": qkv, "o": rotated(layer["o"], rotation)}


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


def int8_rounded(x: Float32) -> Float32:
    """x (rows, columns) rounded to int8, symmetric, with a scale for each row."""
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(_INT8_MAX)
    return np.asarray(np.rint(x / np.where(scale > 0, scale, np.float32(1))) * scale)
