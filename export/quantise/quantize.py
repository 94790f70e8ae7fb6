"""Rounds weights to a grid of integers, so that the squared error of each row is least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...kernels.errors import CheckpointError
from ...kernels.layout import CODEBOOK_INPUTS, INT4_CODEBOOKS, MatrixFormat
from ..checkpoint.checkpoint_tensors import Float32

Codes = npt.NDArray[np.int8]  # integers that times a scale give weights: int8 codes, or levels of int4
Codebooks = npt.NDArray[np.uint8]  # numbers of codebooks of a grid


@dataclass(frozen=True)
class QuantizedRows:
    """Rows of weights as a format stores them.

    Attributes:
        codes: (rows, columns) int8.
        scales: (rows, groups) floating point, each for as many columns.
        codebooks: (rows, columns / CODEBOOK_INPUTS): which codebook of the grid the codes are of; (rows, 0) if it has
            but one.
    """

    codes: Codes
    scales: npt.NDArray[np.floating]
    codebooks: Codebooks

    def weights(self) -> Float32:
        """The weights as float32: (rows, columns)."""
        grouped = self.codes.reshape(*self.scales.shape, -1) * self.scales[:, :, None].astype(np.float32)
        return np.asarray(grouped.reshape(self.codes.shape))


class Grid:
    """The integers that weights are rounded to.

    Args:
        codebooks: (codebooks, levels) integers, ascending in each codebook. If there are several, each run of
            CODEBOOK_INPUTS weights of a row takes the one that fits it best.
    """

    def __init__(self, codebooks: npt.ArrayLike) -> None:
        self.codebooks = np.atleast_2d(np.asarray(codebooks, np.float32))
        self.low, self.high = float(self.codebooks.min()), float(self.codebooks.max())
        # The nearest level to a number x by floor(2 x) - 2 low: midpoints of integers are multiples of a half.
        halves = np.arange(2 * self.low, 2 * self.high + 1) / 2 + 0.25
        self._halves = len(halves)
        midpoints = (self.codebooks[:, 1:] + self.codebooks[:, :-1]) / 2
        self._nearest = np.concatenate(
            [book[np.searchsorted(middle, halves)] for book, middle in zip(self.codebooks, midpoints, strict=True)]
        )

    def nearest(self, x: Float32, codebooks: int | Codebooks = 0) -> Float32:
        """The nearest level of a codebook to each element of x, which it overwrites; a new array of the same shape.

        codebooks is the number of one, or numbers that broadcast to the shape of x.
        """
        x *= 2
        np.floor(x, out=x)
        x -= 2 * np.float32(self.low)
        np.clip(x, 0, self._halves - 1, out=x)
        places = x.astype(np.int16)
        places += np.asarray(codebooks, np.int16) * np.int16(self._halves)
        return self._nearest.take(places)

    def fitting(self, x: Float32, importance: Float32 | None = None) -> Codebooks:
        """The codebook that leaves the least error of each run of x (..., CODEBOOK_INPUTS): (...).

        importance, which broadcasts to the shape of x, is what a squared error costs.
        """
        least, best = np.full(x.shape[:-1], np.inf, np.float32), np.zeros(x.shape[:-1], np.uint8)
        for number in range(len(self.codebooks)):
            error = self.nearest(x.copy(), number)
            error -= x
            error *= error
            cost = error.sum(-1) if importance is None else np.einsum("...i,...i->...", error, importance)
            better = cost < least
            least[better], best[better] = cost[better], number
        return best

    def rounded(self, x: Float32, importance: Float32 | None = None) -> tuple[Float32, Codebooks]:
        """The levels nearest to x (rows, columns), and their codebooks as in `QuantizedRows`."""
        if len(self.codebooks) == 1:
            return self.nearest(x.copy()), np.zeros((len(x), 0), np.uint8)
        runs = x.reshape(len(x), -1, CODEBOOK_INPUTS)
        codebooks = self.fitting(runs, None if importance is None else importance.reshape(runs.shape[1:]))
        return self.nearest(runs.copy(), codebooks[:, :, None]).reshape(x.shape), codebooks


GRIDS: dict[MatrixFormat, Grid] = {"int8": Grid(np.arange(-127, 128)), "int4": Grid(INT4_CODEBOOKS)}

# Clip ratios tried: the largest representable magnitude as a share of the row's largest weight. Clipping the few
# largest weights rounds all others finer. Lower ratios cost cosine: ../EXPERIMENTS.md.
_CLIP_RATIOS = np.linspace(0.8, 1.0, 9)

# With several codebooks a row's scale matters less, since runs of large weights take a wide one. Tried around the best
# for a normal distribution, whose standard deviation is _SPREAD steps.
_SPREAD = 9.5
_SPREAD_RATIOS = np.geomspace(0.76, 1.32, 7)

_BLOCK_ELEMENTS = 1 << 17  # float32 weights quantised at a time, so that they and their temporaries stay in cache


def quantize_rows(
    weights: Float32, grid: Grid, scale_dtype: npt.DTypeLike = np.float32, groups: int = 1
) -> QuantizedRows:
    """Rounds weights (rows, columns), with `groups` scales a row.

    The codes fit the scales as rounded to scale_dtype. A row of zeros has scale 0. Raises CheckpointError if a scale
    exceeds scale_dtype.
    """
    rows, columns = weights.shape
    parts = weights.reshape(rows * groups, columns // groups)
    codes = np.empty(parts.shape, np.int8)
    scales = np.empty(len(parts), scale_dtype)
    books = np.zeros((len(parts), parts.shape[1] // CODEBOOK_INPUTS if len(grid.codebooks) > 1 else 0), np.uint8)
    block_rows = max(1, _BLOCK_ELEMENTS // parts.shape[1])
    for block in (slice(start, start + block_rows) for start in range(0, len(parts), block_rows)):
        with np.errstate(over="ignore"):  # reported below
            scales[block] = best_scales(parts[block], grid)
        codes[block], books[block] = grid.rounded(parts[block] * reciprocals(scales[block].astype(np.float32))[:, None])
    check_scales(scales, weights)
    return QuantizedRows(codes.reshape(rows, columns), scales.reshape(rows, groups), books.reshape(rows, -1))


def best_scales(
    weights: Float32, grid: Grid, clip_ratios: npt.NDArray[np.float64] = _CLIP_RATIOS, importance: Float32 | None = None
) -> Float32:
    """The scale of each row that leaves the least squared error, over the grid of clip ratios.

    importance (columns,) is what a squared error costs in each column, 1 by default.
    Given codes q, the scale that minimises |w - scale * q|² is w·q / q·q, and leaves |w|² - (w·q)² / q·q. So each
    candidate proposes codes, and the codes with the largest (w·q)² / q·q win.
    """
    best_gain = np.zeros(len(weights), np.float32)
    best = np.zeros(len(weights), np.float32)
    weighted = weights if importance is None else weights * importance
    for candidate in _candidates(weights, grid, clip_ratios):
        codes, _ = grid.rounded(weights * reciprocals(candidate)[:, None], importance)
        dot = np.einsum("rc,rc->r", weighted, codes)
        norm = np.einsum("rc,rc->r", codes, codes if importance is None else codes * importance)
        scales = np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
        better = dot * scales > best_gain
        best_gain[better] = (dot * scales)[better]
        best[better] = scales[better]
    return best


def _candidates(weights: Float32, grid: Grid, clip_ratios: npt.NDArray[np.float64]) -> Iterator[Float32]:
    """Scales (rows,) to try."""
    if len(grid.codebooks) > 1:
        deviation = np.sqrt(np.einsum("rc,rc->r", weights, weights) / np.float32(weights.shape[1]))
        yield from (deviation * np.float32(ratio / _SPREAD) for ratio in _SPREAD_RATIOS)
        return
    largest = np.abs(weights).max(axis=1)
    # A scale may be negative: a grid of -8 … 7 then reaches further up than down.
    signs = (1,) if grid.low == -grid.high else (1, -1)
    yield from (largest * np.float32(ratio * sign / -grid.low) for ratio in clip_ratios for sign in signs)


def reciprocals(scales: Float32) -> Float32:
    """1 / scale, and 0 for 0."""
    return np.asarray(np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0))


def check_scales(scales: npt.NDArray[np.floating], weights: Float32) -> None:
    """Raises CheckpointError if scales of these weights are too large for their dtype."""
    if not np.isfinite(scales).all():
        raise CheckpointError(f"weights as large as {np.abs(weights).max():g} do not fit scales of {scales.dtype}")
