"""Codes stay in range, fit their rounded scale, and are at least as near to the weights as plain rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embgemma.export.quantise.quantize import GRIDS, Grid, quantize_rows
from embgemma.kernels.errors import CheckpointError
from embgemma.kernels.layout import CODEBOOK_INPUTS, MatrixFormat

FORMATS: tuple[MatrixFormat, ...] = ("int8", "int4")
SCALE_DTYPES = (np.float32, np.float16)

WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.sampled_from([CODEBOOK_INPUTS, 3 * CODEBOOK_INPUTS])),
    elements=st.floats(-100, 100, width=32),
).map(lambda weights: np.where(np.abs(weights) > 1e-3, weights, np.float32(0)))


def squared_errors(weights: Any, codes: Any, scales: Any) -> npt.NDArray[np.float64]:
    difference = weights.astype(np.float64) - codes.astype(np.float64) * scales.astype(np.float64)[:, None]
    return np.asarray((difference**2).sum(axis=1))


def round_to_largest(weights: Any, high: int) -> npt.NDArray[np.float64]:
    """Squared errors of plain rounding: the largest weight of a row takes the largest code."""
    scales = np.abs(weights).max(axis=1).astype(np.float64) / high
    codes = np.rint(weights / np.where(scales > 0, scales, 1)[:, None])
    return squared_errors(weights, codes, scales)


@given(WEIGHTS, st.sampled_from(FORMATS), st.sampled_from(SCALE_DTYPES))
def test_codes_are_the_nearest_of_their_grid_for_the_stored_scale(weights: Any, matrix_format: Any, dtype: Any) -> None:
    grid = GRIDS[matrix_format]
    rows = quantize_rows(weights, grid, dtype)
    assert (rows.codes.dtype, rows.codes.shape) == (np.dtype(np.int8), weights.shape)
    assert (rows.scales.dtype, rows.scales.shape) == (np.dtype(dtype), (len(weights), 1))
    books = np.repeat(rows.codebooks, CODEBOOK_INPUTS, axis=1) if rows.codebooks.size else np.zeros(weights.shape, int)
    assert (rows.codes[:, :, None] == grid.codebooks[books]).any(axis=2).all()
    chosen = np.abs(weights - rows.codes * rows.scales.astype(np.float64))
    for level in np.moveaxis(grid.codebooks[books], 2, 0):
        other = np.abs(weights - level * rows.scales.astype(np.float64))
        assert np.all(chosen <= other + 1e-5 * np.abs(weights))  # float32 may put a tie on either side of it


def test_runs_take_the_codebook_that_fits_them_best() -> None:
    weights = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    grid = GRIDS["int4"]
    rows = quantize_rows(weights, grid)
    runs = (weights / rows.scales).reshape(50, -1, CODEBOOK_INPUTS)
    errors = [(np.abs(runs[..., None] - book).min(axis=3) ** 2).sum(axis=2) for book in grid.codebooks]
    chosen = np.take_along_axis(np.stack(errors), rows.codebooks[None].astype(int), axis=0)[0]
    assert np.all(chosen <= np.min(errors, axis=0) * (1 + 1e-4))
    assert np.unique(rows.codebooks).size == len(grid.codebooks)


def test_groups_are_rounded_as_rows_of_their_own() -> None:
    weights = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    rows, parts = quantize_rows(weights, GRIDS["int4"], groups=3), quantize_rows(weights.reshape(15, 32), GRIDS["int4"])
    for grouped, alone in ((rows.codes, parts.codes), (rows.scales, parts.scales), (rows.codebooks, parts.codebooks)):
        np.testing.assert_array_equal(grouped.ravel(), alone.ravel())
    np.testing.assert_array_equal(rows.weights().ravel(), parts.weights().ravel())


@pytest.mark.parametrize("matrix_format", FORMATS)
@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
def test_the_search_beats_plain_rounding(matrix_format: MatrixFormat, scale_dtype: Any) -> None:
    weights = np.random.default_rng(0).standard_t(4, (500, 256)).astype(np.float32)
    rows = quantize_rows(weights, GRIDS[matrix_format], scale_dtype)
    plain = round_to_largest(weights, 127 if matrix_format == "int8" else 7)
    assert squared_errors(weights, rows.codes, rows.scales[:, 0]).sum() < plain.sum()


def test_a_lopsided_grid_reaches_as_far_for_a_positive_as_for_a_negative_weight() -> None:
    rows = np.zeros((2, 32), np.float32)
    rows[:, :8] = np.arange(1, 9)  # 8 needs the level -8
    rows[1] *= -1
    rounded = quantize_rows(rows, Grid(np.arange(-8, 8)))
    np.testing.assert_array_equal(rounded.scales, [[-1], [1]])
    np.testing.assert_array_equal(rounded.weights(), rows)


@pytest.mark.parametrize("matrix_format", FORMATS)
def test_a_row_of_zeros_has_scale_zero(matrix_format: MatrixFormat) -> None:
    assert not quantize_rows(np.zeros((3, 64), np.float32), GRIDS[matrix_format]).scales.any()


@pytest.mark.parametrize("matrix_format", FORMATS)
def test_rows_do_not_depend_on_each_other(matrix_format: MatrixFormat) -> None:
    weights = np.random.default_rng(1).standard_normal((3000, 96)).astype(np.float32)
    rows, alone = quantize_rows(weights, GRIDS[matrix_format]), quantize_rows(weights[2345:2346], GRIDS[matrix_format])
    np.testing.assert_array_equal(rows.codes[2345:2346], alone.codes)
    np.testing.assert_array_equal(rows.codebooks[2345:2346], alone.codebooks)
    np.testing.assert_array_equal(rows.scales[2345:2346], alone.scales)


def test_weights_too_large_for_their_scale_are_refused() -> None:
    with pytest.raises(CheckpointError, match="float16"):
        quantize_rows(np.full((1, 32), 1e9, np.float32), GRIDS["int8"], np.float16)
