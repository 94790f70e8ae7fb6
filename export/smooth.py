"""Changes of scale and basis between two matrices that cancel out: the model stays the same, and quantises better.

- Between a norm and the matrix after it, each channel may be divided by a number that the matrix multiplies back:
  SmoothQuant, arXiv 2211.10438. Channels with outliers then no longer dictate the int8 scale of their token, and
  columns that matter more are rounded finer: AWQ, arXiv 2306.00978.
- So may each channel between up and down, as it goes through geglu unchanged, and between values and o, where all
  query heads that share a key/value head share its scales.
- Values may be rotated, as attention only averages them: QuaRot, arXiv 2404.00456. A Hadamard matrix spreads an
  outlier evenly over its head.

All of it is folded into the stored weights and costs nothing at run time. What it gains in int8, as the relative error
of outputs on golden texts, plain and smoothed, mean over 5 layers: qkv 0.017 and 0.009, gate_up 0.020 and 0.011,
o 0.010 and 0.007, down 0.028 and 0.026: the outliers before down are those of tokens, not of channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels.config import EncoderConfig
from ..kernels.layout import PANEL, MatrixFormat
from .forward import Layer, int8_rounded
from .quantize import CODE_RANGE
from .weights import Float32

# Candidates are powers of what `_descend` finds, by the exponents: it knows rounding by its average, and may overfit.
_EXPONENTS = (0.0, 0.5, 1.0)

# Gradient descent by Adam (arXiv 1412.6980), with a step that falls to 0.
_STEPS = 120
_STEP = 0.05  # of the logarithm of a scale
_MOMENTUM, _SQUARES = 0.9, 0.99
_SQUARINGS = 4  # the largest of a row is taken as its 2^4-norm, which has a gradient in more than one place

_CLIP_RATIO: dict[MatrixFormat, float] = {"int8": 1.0, "int4": 0.85}  # of the rounding that candidates are judged by

_SMALLEST = 1e-3  # slopes below this are not blown up


def hadamard(size: int) -> Float32:
    """The orthogonal matrix of Sylvester's construction, (size, size); the identity if size is not a power of 2."""
    if size & (size - 1):
        return np.eye(size, dtype=np.float32)
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.float32(np.sqrt(size)))


def smooth_norm(layer: Layer, norm: str, matrix: str, scale: Float32) -> Layer:
    """Divides the channels between a norm and its matrix by scale (hidden,)."""
    return {**layer, norm: layer[norm] / scale, matrix: layer[matrix] * scale}


def smooth_up(layer: Layer, scale: Float32) -> Layer:
    """Divides the channels between up and down by scale (ffn,)."""
    gate_up = layer["gate_up"].copy()
    up = gate_up.reshape(-1, 2, PANEL, gate_up.shape[1])[:, 1]  # a view: (ffn / 16, 16, hidden)
    up /= scale.reshape(-1, PANEL, 1)
    return {**layer, "gate_up": gate_up, "down": layer["down"] * scale}


def smooth_values(config: EncoderConfig, layer: Layer, scale: Float32) -> Layer:
    """Divides the channels of the values by scale (kv_heads, head_dim)."""
    qkv = layer["qkv"].copy()
    qkv[-config.kv_width :] /= scale.reshape(-1, 1)
    return {**layer, "qkv": qkv, "o": layer["o"] * by_query_head(config, scale)}


def rotate_values(config: EncoderConfig, layer: Layer, rotation: Float32) -> Layer:
    """Multiplies the values of each head by the orthogonal rotation (head_dim, head_dim)."""
    qkv = layer["qkv"].copy()
    values = qkv[-config.kv_width :].reshape(config.kv_heads, config.head_dim, -1)
    qkv[-config.kv_width :] = (rotation @ values).reshape(config.kv_width, -1)
    return {**layer, "qkv": qkv, "o": rotate_heads(layer["o"], rotation)}


def rotate_heads(x: Float32, rotation: Float32) -> Float32:
    """Multiplies each head of x (rows, heads * head_dim) by the rotation."""
    return np.asarray((x.reshape(-1, len(rotation)) @ rotation.T).reshape(x.shape))


def best_scale(x: Float32, weights: Float32, matrix_format: MatrixFormat) -> Float32:
    """The scale (columns,) of the channels between inputs x (rows, columns) and weights that quantises best.

    The error is that of the outputs when inputs are rounded to int8 and weights to their format. One half of the
    inputs, whose order must be random, makes candidates, and the other half judges them.
    """
    return _search(x, weights, matrix_format, np.arange(x.shape[1]))[0]


def best_value_scale(
    config: EncoderConfig, x: Float32, weights: Float32, matrix_format: MatrixFormat
) -> tuple[Float32, float]:
    """As `best_scale`, of the values (kv_heads, head_dim) for x and weights of o (…, q_width); and its error."""
    values = np.arange(config.kv_width).reshape(config.kv_heads, config.head_dim)
    scale, error = _search(x, weights, matrix_format, by_query_head(config, values))
    return scale.reshape(values.shape), error


def _search(
    x: Float32, weights: Float32, matrix_format: MatrixFormat, scale_of: npt.NDArray[np.int64]
) -> tuple[Float32, float]:
    """The best of the candidates and its error; scale_of (columns,) tells which scale a column has."""
    half = len(x) // 2
    found = _descend(x[:half], weights, matrix_format, scale_of)
    judge = x[half:]
    exact = judge @ weights.T
    best, least = np.ones_like(found), np.inf
    for exponent in _EXPONENTS:
        scale = found**exponent
        columns = scale[scale_of]
        out = int8_rounded(judge / columns) @ _rounded(weights * columns, matrix_format).T
        out -= exact
        error = float(np.einsum("rc,rc->", out, out))
        if error < least:
            best, least = scale, error
    return best, least


def _descend(x: Float32, weights: Float32, matrix_format: MatrixFormat, scale_of: npt.NDArray[np.int64]) -> Float32:
    """The scales with the least error if rounding a row to steps of d errs by d² / 12 everywhere.

    A row of inputs is rounded to steps of its largest magnitude / 127, and an error in a column counts as much as the
    weights in that column say; a row of weights likewise.
    """
    log_scale = np.zeros(scale_of.max() + 1)
    momentum, squares = np.zeros_like(log_scale), np.zeros_like(log_scale)
    # in units of which a row's largest magnitude, squared, gives the mean squared error
    x_unit = 1 / (12 * CODE_RANGE["int8"][0] ** 2)
    weight_unit = 1 / (12 * CODE_RANGE[matrix_format][0] ** 2)
    x, weights = np.abs(x), np.abs(weights)
    x_squares, weight_squares = np.einsum("rc,rc->c", x, x), np.einsum("rc,rc->c", weights, weights)
    for step in range(_STEPS):
        scale = np.exp(log_scale[scale_of]).astype(np.float32)
        x_largest, x_slope = _largest_squares(x / scale)
        weight_largest, weight_slope = _largest_squares(weights * scale)
        weight_sum, x_sum = scale**2 * weight_squares, x_squares / scale**2
        from_x = x_unit * x_largest * weight_sum.sum()
        from_weights = weight_unit * weight_largest * x_sum.sum()
        by_column = x_unit * (x_largest * weight_sum - x_slope * weight_sum.sum())
        by_column += weight_unit * (weight_slope * x_sum.sum() - weight_largest * x_sum)
        slope = np.bincount(scale_of, by_column) / (from_x + from_weights)
        momentum = _MOMENTUM * momentum + (1 - _MOMENTUM) * slope
        squares = _SQUARES * squares + (1 - _SQUARES) * slope**2
        direction = momentum / (1 - _MOMENTUM ** (step + 1))
        direction /= np.sqrt(squares / (1 - _SQUARES ** (step + 1))) + _SMALLEST
        log_scale -= _STEP * (1 - step / _STEPS) * direction
        log_scale -= log_scale.mean()
    return np.exp(log_scale).astype(np.float32)


def _largest_squares(x: Float32) -> tuple[float, Float32]:
    """The sum over rows of the square of the largest of x (rows, columns) >= 0, and half its slope by log x, summed."""
    largest = np.maximum(x.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    powers = x / largest
    for _ in range(_SQUARINGS):
        powers *= powers
    total = powers.sum(axis=1, keepdims=True)
    square = largest**2 * total ** np.float32(2 / 2**_SQUARINGS)
    return float(square.sum()), np.asarray(np.einsum("rc,r->c", powers, (square / total)[:, 0]))


def _rounded(weights: Float32, matrix_format: MatrixFormat) -> Float32:
    """Weights (rows, columns) rounded to their format in the simplest way."""
    low, high = CODE_RANGE[matrix_format]
    scale = np.abs(weights).max(axis=1, keepdims=True) * np.float32(_CLIP_RATIO[matrix_format] / -low)
    codes = weights / np.where(scale > 0, scale, 1)
    return np.asarray(np.clip(np.rint(codes, out=codes), low, high, out=codes) * scale)


def by_query_head(config: EncoderConfig, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Something of each channel of the values (kv_heads, head_dim), for the inputs of o: (q_width,)."""
    return np.repeat(values, config.heads // config.kv_heads, axis=0).reshape(-1)
