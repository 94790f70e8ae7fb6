"""Rounding by the error of the outputs beats rounding by the error of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export.quantise.gptq import OutputRounder, damped, gptq
from embgemma.export.quantise.quantize import GRIDS, quantize_rows
from embgemma.kernels.layout import CODEBOOK_INPUTS

if TYPE_CHECKING:
    from embgemma.kernels.layout import MatrixFormat


def correlated_inputs(columns: int) -> Any:
    random = np.random.default_rng(0)
    return (random.standard_normal((4 * columns, columns)) @ random.standard_normal((columns, columns))).astype("f4")


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
def test_the_outputs_are_nearer_than_those_of_plain_rounding(matrix_format: MatrixFormat) -> None:
    x = correlated_inputs(160)  # more than two blocks
    weights = np.random.default_rng(1).standard_t(5, (48, 160)).astype(np.float32)
    grid = GRIDS[matrix_format]
    rounded = gptq(weights, (x.T @ x).astype(np.float64), grid)
    books = (
        np.repeat(rounded.codebooks, CODEBOOK_INPUTS, axis=1) if rounded.codebooks.size else np.zeros((48, 160), int)
    )
    assert (rounded.codes[:, :, None] == grid.codebooks[books]).any(axis=2).all()
    error = np.linalg.norm(x @ (weights - rounded.weights()).T)
    plain_error = np.linalg.norm(x @ (weights - quantize_rows(weights, grid).weights()).T)
    assert error < 0.8 * plain_error


def test_uncorrelated_inputs_give_the_nearest_codes() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    rounded = OutputRounder(np.eye(64), GRIDS["int4"]).round(weights)
    levels = GRIDS["int4"].codebooks[np.repeat(rounded.codebooks, CODEBOOK_INPUTS, axis=1)]
    nearest = np.abs((weights / rounded.scales)[:, :, None] - levels).argmin(axis=2)
    np.testing.assert_array_equal(rounded.codes, np.take_along_axis(levels, nearest[:, :, None], axis=2)[:, :, 0])


@pytest.mark.parametrize("rows", [1, 24])
def test_no_code_that_moves_alone_leaves_less_error(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embgemma.export.quantise.gptq._PASSES", 30)
    x = correlated_inputs(160)
    weights = np.random.default_rng(1).standard_normal((rows, 160)).astype(np.float32)
    rounder = OutputRounder((x.T @ x).astype(np.float64), GRIDS["int4"], damping=0.3)
    rounded = rounder.round(weights)
    gram = damped((x.T @ x).astype(np.float64), 0.3)
    slopes = (weights - rounded.weights()) @ gram
    books = GRIDS["int4"].codebooks[np.repeat(rounded.codebooks, CODEBOOK_INPUTS, axis=1)]
    moves = (books - rounded.codes[:, :, None]) * rounded.scales[:, :, None]  # to each level of a codebook
    gains = 2 * slopes[:, :, None] * moves - np.diag(gram)[:, None] * moves**2
    assert gains.max() < 1e-4 * np.diag(gram).mean() * (rounded.scales**2).max()


def test_groups_have_scales_of_their_own_that_fit_their_type() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 128)).astype(np.float32)
    weights[:, 64:] *= 100
    x = correlated_inputs(128)
    rounder = OutputRounder((x.T @ x).astype(np.float64), GRIDS["int4"], groups=2)
    rounded = rounder.round(weights, np.float16)
    assert (rounded.scales.shape, rounded.scales.dtype) == ((8, 2), np.dtype(np.float16))
    assert np.all(np.abs(rounded.scales[:, 1]) > 10 * np.abs(rounded.scales[:, 0]))
    one = OutputRounder((x.T @ x).astype(np.float64), GRIDS["int4"]).round(weights, np.float16)
    error = np.linalg.norm(x @ (weights - rounded.weights()).T)
    assert error < np.linalg.norm(x @ (weights - one.weights()).T)


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
def test_inputs_that_never_occur_do_no_harm(matrix_format: MatrixFormat) -> None:
    weights = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    for gram in (np.zeros((64, 64)), np.diag(np.arange(64.0))):
        rounded = gptq(weights, gram, GRIDS[matrix_format])
        assert np.isfinite(rounded.scales).all()
        assert np.abs(weights - rounded.weights()).max() < 1
    assert not gptq(np.zeros_like(weights), np.eye(64), GRIDS[matrix_format]).weights().any()
