"""Rounds a matrix so that the error of its outputs, not of its weights, is least: GPTQ, arXiv 2210.17323.

The columns of a matrix are rounded one after another. Each column's rounding error is compensated in later columns
whose inputs correlate with its own, as their Gram matrix says. Then each code in turn moves to where the error is least
beside all others, which may now be later ones too: coordinate descent, arXiv 2406.17542.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...kernels.layout import CODEBOOK_INPUTS
from ..checkpoint.checkpoint_tensors import Float32
from .quantize import Codebooks, Codes, Grid, QuantizedRows, best_scales, reciprocals

Float64 = npt.NDArray[np.float64]

# Share of the mean diagonal that is added to the diagonal of the Gram matrix: what calibration texts have not shown
# may still occur, and the matrix becomes invertible. Better than the paper's 0.01: ../EXPERIMENTS.md.
DAMPING = 0.3

_BLOCK = 64  # columns after which the error is passed on to all others, in one product: whole runs of codebooks

_PASSES = 4  # of coordinate descent. In the fourth 0.4 % of codes move: ../EXPERIMENTS.md
_COARSE = 64  # levels that a grid has at most for that: an error of int8 weights is small beside that of int8 inputs

# Clip ratios tried, as in quantize.py but lower: here the error knows which weights matter.
_CLIP_RATIOS_FINE = np.linspace(0.8, 1.0, 5)  # for a grid of more than 16 levels
_CLIP_RATIOS_COARSE = np.linspace(0.5, 1.0, 11)


class OutputRounder:
    """Rounds rows of weights with the least error of their outputs.

    Args:
        gram: (columns, columns), the sum of x xᵀ over the inputs x: the error of a row e is e · gram · e.
        grid: the integers to round to.
        groups: how many scales a row has, each for as many columns.
        damping: see DAMPING.

    Attributes:
        importance: what a squared error costs in each column, (columns,), after compensation by all later columns.
    """

    def __init__(self, gram: Float64, grid: Grid, *, groups: int = 1, damping: float = DAMPING) -> None:
        self.grid = grid
        self.groups = groups
        self._order = _most_important_first(np.diag(gram), CODEBOOK_INPUTS if len(grid.codebooks) > 1 else 1)
        gram = damped(gram, damping)
        self._gram = (gram / np.diag(gram).max()).astype(np.float32)
        # U of Uᵀ U = inverse(gram): row j says how later columns compensate an error of column j.
        propagate = np.linalg.cholesky(np.linalg.inv(gram[np.ix_(self._order, self._order)])).T
        self._propagate = propagate.astype(np.float32)
        importance = np.empty(len(gram))
        importance[self._order] = 1 / np.diag(propagate) ** 2
        self.importance = np.asarray(importance / importance.max(), np.float32)

    def round(self, weights: Float32, scale_dtype: npt.DTypeLike = np.float32) -> QuantizedRows:
        """Rounds weights (rows, columns)."""
        scales = self._scales(weights).astype(scale_dtype)
        codes, codebooks = self.codes(weights, scales.astype(np.float32))
        return QuantizedRows(codes, scales, codebooks)

    def codes(self, weights: Float32, scales: Float32) -> tuple[Codes, Codebooks]:
        """Codes (rows, columns) for weights (rows, columns) and scales (rows, groups), and their codebooks."""
        steps = np.repeat(scales, weights.shape[1] // self.groups, axis=1)
        in_turn, books_in_turn = _round_in_turn(
            weights[:, self._order], steps[:, self._order], self._propagate, self.grid
        )
        codes = np.empty(weights.T.shape, np.int8)
        codes[self._order] = in_turn
        codebooks = np.empty((len(weights), len(books_in_turn)), np.uint8)
        codebooks[:, self._order[::CODEBOOK_INPUTS][: len(books_in_turn)] // CODEBOOK_INPUTS] = books_in_turn.T
        if self.grid.codebooks.shape[1] > _COARSE:
            return np.ascontiguousarray(codes.T), codebooks
        return _descended(weights.T, codes, steps.T, self._gram, self.grid, codebooks), codebooks

    def _scales(self, weights: Float32) -> Float32:
        """The scales (rows, groups) that are best by the importance of columns."""
        ratios = _CLIP_RATIOS_FINE if self.grid.codebooks.size > 16 else _CLIP_RATIOS_COARSE
        return np.stack(
            [
                best_scales(np.ascontiguousarray(part), self.grid, ratios, important)
                for part, important in zip(
                    np.split(weights, self.groups, axis=1), np.split(self.importance, self.groups), strict=True
                )
            ],
            axis=1,
        )


def gptq(weights: Float32, gram: Float64, grid: Grid) -> QuantizedRows:
    """Rounds a matrix, with a scale for each row; gram and grid as in `OutputRounder`."""
    rounded = OutputRounder(gram, grid).round(weights)
    scales = _refitted_scales(weights, rounded.codes, damped(gram, DAMPING))
    return QuantizedRows(rounded.codes, scales[:, None], rounded.codebooks)


def damped(gram: Float64, damping: float) -> Float64:
    """A Gram matrix with more on its diagonal; see DAMPING."""
    least = np.finfo(np.float32).tiny
    return np.asarray(gram + np.eye(len(gram)) * max(damping * float(np.diag(gram).mean()), least))


def _most_important_first(diagonal: Float64, run: int) -> npt.NDArray[np.intp]:
    """The order of rounding: important columns first, while many can compensate; runs of columns stay together."""
    runs = np.argsort(-diagonal.reshape(-1, run).sum(axis=1), kind="stable")
    return np.asarray((runs[:, None] * run + np.arange(run)).reshape(-1))


def _round_in_turn(weights: Float32, scales: Float32, propagate: Float32, grid: Grid) -> tuple[Codes, Codebooks]:
    """The codes (columns, rows) of weights and scales (rows, columns), whose order is the order of rounding, and the
    codebooks (columns / CODEBOOK_INPUTS, rows), or (0, rows) if there is one for all.
    """
    several = len(grid.codebooks) > 1
    importance = np.diag(propagate) ** -2.0  # what a squared error costs in each column: as in OutputRounder
    books = np.empty((len(propagate) // CODEBOOK_INPUTS if several else 0, len(weights)), np.uint8)
    book: int | Codebooks = 0
    remaining = np.ascontiguousarray(weights.T)  # (columns, rows): a column of weights is a contiguous row
    steps = np.ascontiguousarray(scales.T)
    inverse = reciprocals(steps)
    codes = np.empty(remaining.shape, np.int8)
    for start in range(0, len(remaining), _BLOCK):
        stop = min(start + _BLOCK, len(remaining))
        errors = np.empty((stop - start, len(weights)), np.float32)
        for j in range(start, stop):
            if several and j % CODEBOOK_INPUTS == 0:
                run = slice(j, j + CODEBOOK_INPUTS)
                book = grid.fitting((remaining[run] * inverse[run]).T, importance[run])
                books[j // CODEBOOK_INPUTS] = book
            code = grid.nearest(remaining[j] * inverse[j], book)
            codes[j] = code
            error = (remaining[j] - code * steps[j]) / propagate[j, j]
            remaining[j + 1 : stop] -= propagate[j, j + 1 : stop, None] * error
            errors[j - start] = error
        remaining[stop:] -= propagate[start:stop, stop:].T @ errors
    return codes, books


def _descended(
    weights: Float32, codes: Codes, steps: Float32, gram: Float32, grid: Grid, codebooks: Codebooks
) -> Codes:
    """The codes (rows, columns) after some passes over all columns; weights, codes and steps are (columns, rows)."""
    levels, steps = codes.astype(np.float32), np.ascontiguousarray(steps)
    inverse = reciprocals(steps) / np.diag(gram)[:, None]
    slopes = gram @ (weights - levels * steps)  # how fast the error falls with each weight, (columns, rows)
    for start in [*range(0, len(gram), _BLOCK)] * _PASSES:
        block = slice(start, min(start + _BLOCK, len(gram)))
        within, before = slopes[block].copy(), levels[block].copy()
        for j in range(block.start, block.stop):
            book = codebooks[:, j // CODEBOOK_INPUTS] if codebooks.size else 0
            code = grid.nearest(levels[j] + within[j - start] * inverse[j], book)
            within -= gram[block, j, None] * ((code - levels[j]) * steps[j])
            levels[j] = code
        slopes -= gram[:, block] @ ((levels[block] - before) * steps[block])
    return np.ascontiguousarray(levels.T).astype(np.int8)


def _refitted_scales(weights: Float32, codes: Codes, gram: Float64) -> Float32:
    """The scale of each row that is best for its codes: the error is quadratic in it."""
    seen = codes.astype(np.float32) @ gram.astype(np.float32)
    dot = np.einsum("rc,rc->r", seen, weights)
    norm = np.einsum("rc,rc->r", seen, codes)
    return np.asarray(np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0))
