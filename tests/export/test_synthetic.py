"""Synthetic models are repeatable, differ by seed, and keep activations sane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels import create_backend
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.layout import embedding_rows, matrices, unpack_matrix
from embgemma.kernels.model_file import SCHEMES, read_model_file
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path, seed in zip(paths, (5, 5, 6), strict=True):
        write_synthetic_model(path, tiny.CONFIG, "mixed", seed=seed)
    same, again, other = (path.read_bytes() for path in paths)
    assert same == again != other


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_keep_the_variance_of_what_they_multiply(tmp_path: Path, scheme: Any) -> None:
    path = tmp_path / "model.safetensors"
    write_synthetic_model(path, tiny.CONFIG, scheme)
    model = read_model_file(path)
    for spec in matrices(tiny.CONFIG):
        weights = unpack_matrix(model.tensors, spec.name).astype(np.float64)
        if scheme != "float32":
            weights *= model.tensors[f"{spec.name}.scale"][:, None]
        assert weights.std() * spec.in_features**0.5 == pytest.approx(1, rel=0.1)
    table, scale = model.tensors["embedding.weight"], model.tensors.get("embedding.scale")
    assert embedding_rows(table, scale, tiny.CONFIG.hidden, np.arange(100, dtype=np.int32)).std() == pytest.approx(
        1, rel=0.1
    )


def test_different_texts_have_different_vectors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_synthetic_model(path, tiny.CONFIG, "int8")
    model = read_model_file(path)
    ids = np.array([2, 5, 6, 7, 1, 2, 5, 6, 8, 1], np.int32)
    backend = create_backend(model, backend="reference")
    first, second = backend.encode(ids, np.array([0, 5, 10], np.int64), tiny.CONFIG.hidden, True)
    assert 0 < first @ second < 0.99


def test_shapes_that_the_engine_cannot_run_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ModelFileError, match="hidden"):
        write_synthetic_model(tmp_path / "model.safetensors", replace(tiny.CONFIG, hidden=100), "int8")
    assert not list(tmp_path.iterdir())
