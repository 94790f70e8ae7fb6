"""The model file that the benchmark's tests run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.kernels.model_file import ModelFile, Scheme


@pytest.fixture(scope="session")
def model_path(small_model: Callable[[Scheme], ModelFile]) -> Path:
    """A small model of random weights in the `mixed` scheme."""
    return small_model("mixed").path
