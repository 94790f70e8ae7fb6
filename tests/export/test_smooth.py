"""Changes of scale and basis leave what a layer computes as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export import smooth
from embgemma.export.checkpoint import read_checkpoint
from embgemma.export.folds import folded_layer
from embgemma.export.forward import int8_rounded, layer_values
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from embgemma.export.forward import Layer

CONFIG = tiny.CONFIG
OFFSETS = np.array([0, 9, 20, 23])


def scale(*shape: int) -> Any:
    return np.exp(np.random.default_rng(1).standard_normal(shape))


def rotation() -> Any:
    return np.linalg.qr(np.random.default_rng(2).standard_normal((CONFIG.head_dim, CONFIG.head_dim)))[0]


CHANGES: dict[str, Callable[[Layer], Layer]] = {
    "attention input": lambda layer: smooth.smooth_norm(layer, "input_norm", "qkv", scale(CONFIG.hidden)),
    "ffn input": lambda layer: smooth.smooth_norm(layer, "pre_ffn_norm", "gate_up", scale(CONFIG.hidden)),
    "up": lambda layer: smooth.smooth_up(layer, scale(CONFIG.ffn)),
    "values": lambda layer: smooth.smooth_values(CONFIG, layer, scale(CONFIG.kv_heads, CONFIG.head_dim)),
    "rotation": lambda layer: smooth.rotate_values(CONFIG, layer, rotation()),
}


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")
    return {name: tensor.astype(np.float64) for name, tensor in folded_layer(read_checkpoint(folder), 0).items()}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_scale_or_basis_is_exact(layer: Layer, change: str) -> None:
    hidden = np.random.default_rng(0).standard_normal((OFFSETS[-1], CONFIG.hidden))
    changed = CHANGES[change](layer)
    assert any(not np.array_equal(changed[name], layer[name]) for name in layer)
    expected = layer_values(CONFIG, 0, layer, hidden, OFFSETS).hidden
    found = layer_values(CONFIG, 0, changed, hidden, OFFSETS).hidden
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)  # float64: sums of some hundred terms


@pytest.mark.parametrize("size", [1, 2, 64, 256, 96])
def test_the_hadamard_matrix_is_orthogonal(size: int) -> None:
    np.testing.assert_allclose(smooth.hadamard(size) @ smooth.hadamard(size).T, np.eye(size), atol=1e-6)


def test_the_best_scale_tames_outliers_in_the_inputs() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((200, 64)).astype(np.float32)
    x[:, 5] *= 50
    weights = random.standard_normal((96, 64)).astype(np.float32)
    best = smooth.best_scale(x, weights, "int8")
    assert best[5] > 5 * np.median(best)
    error = np.sum((int8_rounded(x / best) * best - x) ** 2 @ np.sum(weights**2, axis=0))
    plain = np.sum((int8_rounded(x) - x) ** 2 @ np.sum(weights**2, axis=0))
    assert error < plain / 4
