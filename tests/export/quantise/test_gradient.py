"""Gradients are those that small differences show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.export.checkpoint.folds import folded_layer
from embgemma.export.quantise.calibration import CalibrationBatch
from embgemma.export.quantise.forward import layer_values
from embgemma.export.quantise.gradient import embedding_sensitivity, layer_gradient
from tests import tiny

if TYPE_CHECKING:
    from embgemma.export.checkpoint.checkpoint import Checkpoint

CONFIG = tiny.CONFIG
OFFSETS = np.array([0, 9, 20, 23])


@pytest.mark.parametrize("index", [0, 2])  # a sliding layer and a full one
def test_the_gradient_of_a_layer_is_its_slope(tiny_source: Checkpoint, index: int) -> None:
    random = np.random.default_rng(index)
    hidden, given, direction = random.standard_normal((3, OFFSETS[-1], CONFIG.hidden)).astype(np.float32)
    layer = folded_layer(tiny_source, index)

    def value(step: float) -> float:
        moved = layer_values(CONFIG, index, layer, hidden + np.float32(step) * direction, OFFSETS)[1]
        return float(np.sum(moved.astype(np.float64) * given))

    step = 1e-2
    gradient = layer_gradient(CONFIG, index, layer, hidden, OFFSETS, given)
    slope = (value(step) - value(-step)) / (2 * step)
    assert np.sum(gradient.astype(np.float64) * direction) == pytest.approx(slope, rel=3e-3)


def test_sensitivity_is_that_of_the_direction_of_the_embedding(tiny_source: Checkpoint) -> None:
    ids = np.arange(3, 3 + OFFSETS[-1], dtype=np.int32)
    embedded = np.random.default_rng(0).standard_normal((len(ids), CONFIG.hidden)).astype(np.float32)
    sensitivity = embedding_sensitivity(tiny_source, CalibrationBatch(ids, OFFSETS), embedded)
    assert sensitivity.shape == embedded.shape
    # scaling the rows of all tokens of a text by the same factor hardly turns its embedding: norms undo it
    along = np.abs(np.sum(sensitivity * embedded)) / np.linalg.norm(sensitivity)
    assert along < 0.2 * np.linalg.norm(embedded)
