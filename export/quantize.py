"""Rounds weights to a grid of integers, one scale per row, so that the squared error of the row is least."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..kernels.errors import CheckpointError
from ..kernels.layout import INT4_LEVELS, MatrixFormat
from .weights import Float32

Codes = npt.NDArray[np.int8]  # integers that times a scale give weights: int8 codes, or levels of int4


class Grid:
    """The integers that weights are rounded to.

    Args:
        levels: the integers, ascending.
    """

    def __init__(self, levels: npt.ArrayLike) -> None:
        self.levels = np.asarray(levels, np.float32)
        self.low, self.high = float(self.levels[0]), float(self.levels[-1])
        # The nearest level to a number x by floor(2 x) - 2 low: midpoints of integers are multiples of a half.
        halves = np.arange(2 * self.low, 2 * self.high + 1) / 2 + 0.25
        self._nearest = self.levels[np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, halves)]

    def nearest(self, x: Float32) -> Float32:
        """The nearest level to each element of x, which it overwrites; a new array of the same shape."""
        x *= 2
        np.floor(x, out=x)
        x -= 2 * np.float32(self.low)
        np.clip(x, 0, len(self._nearest) - 1, out=x)
        return self._nearest[x.astype(np.int16)]


GRIDS: dict[MatrixFormat, Grid] = {"int8": Grid(np.arange(-127, 128)), "int4": Grid(INT4_LEVELS)}

# Clip ratios tried: the largest representable magnitude as a share of the row's largest weight. Cutting off the few
# largest weights rounds all the others finer. Why not down to 0.4: the squared error falls further, but large weights
# matter more than it knows. Mean cosine to float32 over the golden texts with one kind of matrix in int4, for a grid
# from 1.0 / 0.8 / 0.4: gate_up 0.982 / 0.982 / 0.978, down 0.974 / 0.978 / 0.975, qkv 0.978 / 0.978 / 0.973,
# o 0.985 / 0.985 / 0.983, head 0.982 / 0.986 / 0.986.
_CLIP_RATIOS = np.linspace(0.8, 1.0, 9)

_BLOCK_ELEMENTS = 1 << 17  # float32 weights quantised at a time, so that they and their temporaries stay in cache


def quantize_rows(
    weights: Float32, grid: Grid, scale_dtype: npt.DTypeLike = np.float32
) -> tuple[Codes, npt.NDArray[np.floating]]:
    """Codes (rows, columns) and scales (rows,) with weights ≈ codes * scales, for weights (rows, columns).

    The codes fit the scales as rounded to scale_dtype. A row of zeros has scale 0. Raises CheckpointError if a scale
    exceeds scale_dtype.
    """
    rows, columns = weights.shape
    codes = np.empty((rows, columns), np.int8)
    scales = np.empty(rows, scale_dtype)
    block_rows = max(1, _BLOCK_ELEMENTS // columns)
    for block in (slice(start, start + block_rows) for start in range(0, rows, block_rows)):
        with np.errstate(over="ignore"):  # reported below
            scales[block] = best_scales(weights[block], grid)
        codes[block] = _nearest_codes(weights[block], scales[block].astype(np.float32), grid)
    if not np.isfinite(scales).all():
        raise CheckpointError(f"weights as large as {np.abs(weights).max():g} do not fit scales of {scales.dtype}")
    return codes, scales


def best_scales(
    weights: Float32,
    grid: Grid,
    clip_ratios: npt.NDArray[np.float64] = _CLIP_RATIOS,
    importance: Float32 | None = None,
) -> Float32:
    """The scale of each row that leaves the least squared error, over the grid of clip ratios.

    importance (columns,) is what a squared error costs in each column, 1 by default.
    Given codes q, the scale that minimises |w - scale * q|² is w·q / q·q, and leaves |w|² - (w·q)² / q·q. So each
    ratio proposes codes, and the codes with the largest (w·q)² / q·q win.
    """
    largest = np.abs(weights).max(axis=1)
    best_gain = np.zeros(len(weights), np.float32)
    best_scales = np.zeros(len(weights), np.float32)
    weighted = weights if importance is None else weights * importance
    # A scale may be negative: a grid of -8 … 7 then reaches further up than down.
    signs = (1,) if grid.low == -grid.high else (1, -1)
    for step in (ratio * sign / -grid.low for ratio in clip_ratios for sign in signs):
        codes = _nearest_codes(weights, largest * np.float32(step), grid)
        dot = np.einsum("rc,rc->r", weighted, codes)
        norm = np.einsum("rc,rc->r", codes, codes if importance is None else codes * importance)
        scales = np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
        better = dot * scales > best_gain
        best_gain[better] = (dot * scales)[better]
        best_scales[better] = scales[better]
    return best_scales


def _nearest_codes(weights: Float32, scales: Float32, grid: Grid) -> Float32:
    """The code nearest to each weight under its row's scale, still as float32."""
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    return grid.nearest(weights * inverse[:, None])
