"""Rounds weights to int8 or int4 codes, one scale per row, so that the squared error of the row is least."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..kernels.layout import MatrixFormat
from .weights import Float32

Codes = npt.NDArray[np.int8]

CODE_RANGE: dict[MatrixFormat, tuple[int, int]] = {"int8": (-127, 127), "int4": (-8, 7)}

# Largest representable magnitude tried, as a share of the row's largest weight: cutting off the few largest weights
# rounds all the others finer. Few bits gain more from it.
_CLIP_RATIOS: dict[MatrixFormat, npt.NDArray[np.float64]] = {
    "int8": np.linspace(0.70, 1.0, 7),
    "int4": np.linspace(0.40, 1.0, 13),
}

_BLOCK_ELEMENTS = 1 << 17  # float32 weights quantised at a time, so that they and their temporaries stay in cache


def quantize_rows(
    weights: Float32, matrix_format: MatrixFormat, scale_dtype: npt.DTypeLike = np.float32
) -> tuple[Codes, npt.NDArray[np.floating]]:
    """Codes (rows, columns) and scales (rows,) with weights ≈ codes * scales, for weights (rows, columns).

    The codes fit the scales as rounded to scale_dtype. A row of zeros has scale 0.
    """
    rows, columns = weights.shape
    codes = np.empty((rows, columns), np.int8)
    scales = np.empty(rows, scale_dtype)
    block = max(1, _BLOCK_ELEMENTS // columns)
    for start in range(0, rows, block):
        part = weights[start : start + block]
        scales[start : start + block] = _search_scales(part, matrix_format)
        codes[start : start + block] = _round(part, scales[start : start + block], matrix_format)
    return codes, scales


def _search_scales(weights: Float32, matrix_format: MatrixFormat) -> Float32:
    """The best scale of each row, over a grid of clip ratios.

    Given codes q, the scale that minimises |w - scale * q|² is w·q / q·q, and leaves |w|² - (w·q)² / q·q. So each
    ratio proposes codes, and the codes with the largest (w·q)² / q·q win.
    """
    low, high = CODE_RANGE[matrix_format]
    largest = np.abs(weights).max(axis=1)
    best_gain = np.zeros(len(weights), np.float32)
    best_scale = np.zeros(len(weights), np.float32)
    # A scale may be negative: -8 … 7 then reaches further up than down.
    signs = (1,) if low == -high else (1, -1)
    for step in (ratio * sign / -low for ratio in _CLIP_RATIOS[matrix_format] for sign in signs):
        codes = _rounded(weights, largest * np.float32(step), low, high)
        dot = np.einsum("rc,rc->r", weights, codes)
        gain = dot * dot
        norm = np.einsum("rc,rc->r", codes, codes)
        np.divide(gain, norm, out=gain, where=norm > 0)
        better = gain > best_gain
        best_gain[better] = gain[better]
        best_scale[better] = dot[better] / norm[better]
    return best_scale


def _rounded(weights: Float32, scales: Float32, low: int, high: int) -> Float32:
    """Nearest codes of each row for its scale, still as float32."""
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    codes = weights * inverse[:, None]
    np.rint(codes, out=codes)
    return np.clip(codes, low, high, out=codes)


def _round(weights: Float32, scales: npt.NDArray[np.floating], matrix_format: MatrixFormat) -> Codes:
    """Nearest codes of each row for its final scale."""
    return _rounded(weights, scales.astype(np.float32), *CODE_RANGE[matrix_format]).astype(np.int8)
