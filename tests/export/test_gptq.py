"""Rounding by the error of the outputs beats rounding by the error of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export.gptq import OutputRounder, gptq
from embgemma.export.quantize import GRIDS, quantize_rows

if TYPE_CHECKING:
    from embgemma.kernels.layout import MatrixFormat


def correlated_inputs(columns: int) -> Any:
    random = np.random.default_rng(0)
    return (random.standard_normal((4 * columns, columns)) @ random.standard_normal((columns, columns))).astype("f4")


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
def test_the_outputs_are_nearer_than_those_of_plain_rounding(matrix_format: MatrixFormat) -> None:
    x = correlated_inputs(160)  # more than two blocks
    weights = np.random.default_rng(1).standard_t(5, (48, 160)).astype(np.float32)
    codes, scales = gptq(weights, (x.T @ x).astype(np.float64), GRIDS[matrix_format])
    assert np.isin(codes, GRIDS[matrix_format].levels).all()
    plain_codes, plain_scales = quantize_rows(weights, GRIDS[matrix_format])
    error = np.linalg.norm(x @ (weights - codes * scales[:, None]).T)
    plain_error = np.linalg.norm(x @ (weights - plain_codes * plain_scales[:, None]).T)
    assert error < 0.8 * plain_error


def test_inputs_that_do_not_go_along_give_the_nearest_codes() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    codes, scales = OutputRounder(np.eye(64), GRIDS["int4"]).round(weights)
    distances = np.abs((weights / scales)[:, :, None] - GRIDS["int4"].levels)
    np.testing.assert_array_equal(codes, GRIDS["int4"].levels[distances.argmin(axis=2)])


def test_groups_have_scales_of_their_own_that_fit_their_type() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 128)).astype(np.float32)
    weights[:, 64:] *= 100
    x = correlated_inputs(128)
    rounder = OutputRounder((x.T @ x).astype(np.float64), GRIDS["int4"], groups=2)
    codes, scales = rounder.round(weights, np.float16)
    assert scales.shape == (8, 2)
    np.testing.assert_array_equal(scales, scales.astype(np.float16))
    assert np.all(np.abs(scales[:, 1]) > 10 * np.abs(scales[:, 0]))
    one_codes, one_scales = OutputRounder((x.T @ x).astype(np.float64), GRIDS["int4"]).round(weights, np.float16)
    error = np.linalg.norm(x @ (weights - codes * np.repeat(scales, 64, axis=1)).T)
    assert error < np.linalg.norm(x @ (weights - one_codes * one_scales).T)


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
def test_inputs_that_never_occur_do_no_harm(matrix_format: MatrixFormat) -> None:
    weights = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    for gram in (np.zeros((64, 64)), np.diag(np.arange(64.0))):
        codes, scales = gptq(weights, gram, GRIDS[matrix_format])
        assert np.isfinite(scales).all()
        assert np.abs(weights - codes * scales[:, None]).max() < 1
    codes, scales = gptq(np.zeros_like(weights), np.eye(64), GRIDS[matrix_format])
    assert not (codes * scales[:, None]).any()
