"""Texts go through the layers in runs: that takes less memory, and changes nothing."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.export.quantise import calibration
from embgemma.export.quantise.calibrate import calibrated_parts
from embgemma.export.quantise.calibration import CalibrationBatch
from embgemma.export.quantise.embedding import EmbeddingTable
from embgemma.export.quantise.gradient import embedding_sensitivity
from embgemma.notices import Progress
from tests import tiny

if TYPE_CHECKING:
    from embgemma.export.checkpoint.checkpoint import Checkpoint
    from embgemma.export.checkpoint.checkpoint_tensors import Float32
    from embgemma.export.quantise.gptq import Float64

CONFIG = tiny.CONFIG


def batch_of(lengths: list[int]) -> CalibrationBatch:
    offsets = np.cumsum([0, *lengths])
    return CalibrationBatch(np.arange(offsets[-1], dtype=np.int32) % CONFIG.vocab, offsets)


@dataclass(frozen=True)
class Exact:
    """A matrix that is stored as it is."""

    stored: Float32

    def weights(self) -> Float32:
        return self.stored


def grams(source: Checkpoint, batch: CalibrationBatch, *, rotated_values: bool = False) -> dict[str, Float64]:
    """The Gram matrix of the inputs of each matrix, in the order of the forward pass."""
    found: dict[str, Float64] = {}

    def rounder(name: str, weights: Float32, gram: Float64) -> Exact:
        found[name] = gram
        return Exact(weights)

    table = EmbeddingTable(source, None)
    for _ in calibrated_parts(source, batch, table, rounder, Progress(quiet=True), rotated_values=rotated_values):
        pass
    return found


@pytest.mark.parametrize("rotated_values", [False, True])
@pytest.mark.parametrize("most", [1, 25, 47])
def test_matrices_see_the_same_inputs_in_runs_of_any_size(
    tiny_source: Checkpoint, monkeypatch: pytest.MonkeyPatch, most: int, *, rotated_values: bool
) -> None:
    batch = batch_of([9, 11, 1, 40, 3, 30])  # in one run, at most 47 tokens, single texts
    whole = grams(tiny_source, batch, rotated_values=rotated_values)
    assert [name.removeprefix("layers.0.") for name in whole][:4] == ["qkv", "o", "gate_up", "down"]
    monkeypatch.setattr(calibration, "RUN_TOKENS", most)
    for name, gram in grams(tiny_source, batch, rotated_values=rotated_values).items():
        # a sum in another order may move an activation to the next int8 code, here and there
        np.testing.assert_allclose(gram, whole[name], atol=1e-3 * np.abs(whole[name]).max(), err_msg=name)


def test_sensitivity_is_the_same_in_runs_of_any_size(tiny_source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of([9, 11, 1, 40])
    embedded = np.random.default_rng(0).standard_normal((len(batch.ids), CONFIG.hidden)).astype(np.float32)
    whole = embedding_sensitivity(tiny_source, batch, embedded)
    monkeypatch.setattr(calibration, "RUN_TOKENS", 12)
    np.testing.assert_allclose(
        embedding_sensitivity(tiny_source, batch, embedded), whole, atol=1e-3 * np.abs(whole).max()
    )


def test_memory_grows_by_the_hidden_states_alone(tiny_source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "RUN_TOKENS", 500)

    def peak(texts: int) -> int:
        batch = batch_of([50] * texts)
        tracemalloc.start()
        try:
            grams(tiny_source, batch)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = 20, 120
    grown = (peak(many) - peak(few)) / (50 * (many - few))
    # float32: the stream, and in a layer the stream after attention; int8: inputs of a matrix, and the next ones
    assert grown < 1.2 * (2 * np.dtype(np.float32).itemsize * CONFIG.hidden + 2 * CONFIG.ffn)
