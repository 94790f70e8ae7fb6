"""Synthetic models are repeatable, differ by seed, and keep activations sane."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels import create_backend
from embgemma.kernels.embedding_rows import EmbeddingRows
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.layout import matrices, unpack_matrix
from embgemma.kernels.model_file import SCHEMES
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embgemma.kernels.model_file import ModelFile, Scheme


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path, seed in zip(paths, (5, 5, 6), strict=True):
        write_synthetic_model(path, tiny.CONFIG, "mixed", seed=seed)
    same, again, other = (path.read_bytes() for path in paths)
    assert same == again != other


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_keep_the_variance_of_what_they_multiply(
    small_model: Callable[[Scheme], ModelFile], scheme: Scheme
) -> None:
    model = small_model(scheme)
    for spec in matrices(model.config):
        weights = unpack_matrix(model.tensors, spec.name).astype(np.float64)
        if scheme != "float32":
            weights *= model.tensors[f"{spec.name}.scale"][:, None]
        assert weights.std() * spec.in_features**0.5 == pytest.approx(1, rel=0.1)
    rows = EmbeddingRows(model.tensors, model.config.hidden).values(np.arange(model.config.vocab))
    np.testing.assert_allclose(rows.std(axis=1), 1, rtol=0.5)
    assert rows.std() == pytest.approx(1, rel=0.1)


def test_different_texts_have_different_vectors(small_model: Callable[[Scheme], ModelFile]) -> None:
    model = small_model("int8")
    ids = np.array([2, 5, 6, 7, 1, 2, 5, 6, 8, 1], np.int32)
    backend = create_backend(model, backend="reference")
    first, second = backend.encode(ids, np.array([0, 5, 10], np.int64), model.config.hidden, True)
    assert 0 < first @ second < 0.99


def test_shapes_that_the_engine_cannot_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="hidden"):
        write_synthetic_model(tmp_path / "model.safetensors", replace(tiny.CONFIG, hidden=100), "int8")
    assert not list(tmp_path.iterdir())
