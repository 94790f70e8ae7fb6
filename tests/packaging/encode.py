"""Encodes with a small model of random weights, and checks that the backend named by the argument does the work.

The argument "none" stands for an install that has nothing to run on: it must say how to get something.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import embgemma
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels import Backend, available_backends, create_backend
from embgemma.kernels.errors import BackendError
from embgemma.kernels.model_file import read_model_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.tiny import CONFIG


def create() -> Backend:
    """The backend that "auto" gives for a small model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        write_synthetic_model(path, CONFIG, "mixed")
        model = read_model_file(path)
        return create_backend(model)


def check_refusal() -> str:
    try:
        create()
    except BackendError as error:
        refusal = str(error)
    assert "[numba]" in refusal, refusal
    return f"refuses, as it should: {refusal}"


def check_encoding(expected: str) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend = create()
    warned = any("the Numba backend is active" in str(warning.message) for warning in caught)
    assert (backend.name, warned) == (expected, expected == "numba"), (backend.name, caught)
    assert expected in available_backends()
    ids, offsets = np.array([2, 5, 1, 2, 1], np.int32), np.array([0, 3, 5], np.int64)
    vectors = backend.encode(ids, offsets, CONFIG.hidden, normalize=True)
    assert vectors.shape == (2, CONFIG.hidden)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    version = importlib.metadata.version("embgemma")
    return f"embgemma {version} in {Path(embgemma.__file__).parent} encodes with {backend.name} on {backend.isa}"


print(check_refusal() if sys.argv[1] == "none" else check_encoding(sys.argv[1]))
