"""Rows are rounded as finely as their words fit, near what theory allows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export.quantise.gptq import OutputRounder
from embgemma.export.quantise.row_rounder import RowRounder, normal_code
from embgemma.kernels.embedding_rows import LEVELS, LOWEST, RATE_BITS, RATES, WORD_BITS
from embgemma.kernels.errors import CheckpointError

if TYPE_CHECKING:
    import numpy.typing as npt

    from embgemma.export.checkpoint.checkpoint_tensors import Float32

BITS = (3, 3.25, 4, 6)


def gram_of(hidden: int) -> npt.NDArray[np.float64]:
    """The Gram matrix of correlated samples."""
    random = np.random.default_rng(0)
    samples = random.standard_normal((2 * hidden, hidden)) @ random.standard_normal((hidden, hidden))
    return np.asarray(samples.T @ samples)


def odd_rows(hidden: int) -> Float32:
    """Normal ones, heavy tails, zeros, constants, one huge weight, a half of zeros, and tiny weights."""
    random = np.random.default_rng(1)
    rows = np.zeros((12, hidden))
    rows[:3] = random.standard_normal((3, hidden))
    rows[3:6] = random.standard_t(2, (3, hidden))
    rows[7], rows[8] = 1, -1e-3
    rows[9] = rows[0]
    rows[9, 5] = 1000
    rows[10, : hidden // 2] = rows[0, : hidden // 2]
    rows[11] = 1e-8 * rows[0]
    return rows.astype(np.float32)


@pytest.mark.parametrize("rate", [6, 12, 13, 16, 24, RATES])
@pytest.mark.parametrize("hidden", [64, 192])
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_words_of_any_row_fit_its_rate(rate: int, hidden: int, *, calibrated: bool) -> None:
    rounder = RowRounder(rate)
    outputs = OutputRounder(gram_of(hidden), rounder.grid, damping=0.5) if calibrated else None
    levels, scales = rounder.round(odd_rows(hidden), outputs)
    assert (levels.dtype, scales.dtype, scales.shape) == (np.dtype(np.int8), np.dtype(np.float16), (12, 1))
    assert rounder.code.lengths[levels.astype(int) - LOWEST].all()  # each has a word
    assert rounder.code.size(levels).max() <= hidden * rate / RATE_BITS
    assert np.isfinite(scales).all()
    assert not levels[6].any()
    assert scales[6] == 0
    if rate >= 12:
        assert levels[9, 5] * float(scales[9, 0]) == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize("bits", BITS)
def test_normal_rows_have_the_error_of_theory(bits: float) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 768)).astype(np.float32)
    rows *= np.geomspace(1e-3, 10, 300, dtype=np.float32)[:, None]
    levels, scales = RowRounder(round(RATE_BITS * bits)).round(rows, None)
    error = ((rows - levels * scales.astype(np.float32)) ** 2).mean(axis=1) / (rows**2).mean(axis=1)
    least = math.pi * math.e / 6 * 4**-bits  # of even steps and an ideal code
    assert 0.95 * least < error.mean() < 1.2 * least
    assert error.max() < 1.6 * least


def test_calibrated_rows_have_nearer_outputs() -> None:
    rows, gram = np.random.default_rng(0).standard_normal((20, 192)).astype(np.float32), gram_of(192)
    rounder = RowRounder(12)

    def cost(outputs: OutputRounder | None) -> float:
        levels, scales = rounder.round(rows, outputs)
        errors = rows - levels * scales.astype(np.float32)
        return float(np.einsum("ri,ij,rj->", errors, gram, errors, optimize=True))

    assert cost(OutputRounder(gram, rounder.grid, damping=0.5)) < 0.8 * cost(None)


def test_rows_do_not_depend_on_each_other() -> None:
    rows, rounder = odd_rows(192), RowRounder(12)
    levels, scales = rounder.round(rows, None)
    for i in range(len(rows)):
        alone = rounder.round(rows[i : i + 1], None)
        np.testing.assert_array_equal(alone[0][0], levels[i])
        np.testing.assert_array_equal(alone[1][0], scales[i])


@pytest.mark.parametrize("weight", [2e5, 1e9, 3e38])
@pytest.mark.parametrize("calibrated", [False, True])
def test_weights_too_large_for_a_scale_are_refused(weight: float, *, calibrated: bool) -> None:
    rounder = RowRounder(12)
    outputs = OutputRounder(gram_of(64), rounder.grid, damping=0.5) if calibrated else None
    rows: Any = odd_rows(64)
    rows[7] = weight
    with pytest.raises(CheckpointError, match="float16"):
        rounder.round(rows, outputs)


@pytest.mark.parametrize("rate", range(RATE_BITS + 1, RATES + 1))
def test_a_code_uses_up_all_patterns_and_fits_normal_weights(rate: int) -> None:
    step, lengths = normal_code(rate)
    used = lengths[lengths > 0].astype(int)
    assert (lengths.shape, lengths.dtype) == ((LEVELS,), np.dtype(np.uint8))
    assert (1 << (WORD_BITS - used)).sum() == 1 << WORD_BITS
    weights = np.random.default_rng(0).standard_normal(100_000)
    places = np.rint(weights / step).clip(-127, 127).astype(int) - LOWEST
    assert lengths[places].all()
    assert lengths[places].mean() < (rate + 0.25) / RATE_BITS
