"""Fixtures that the tests of the exporter share: a tiny checkpoint, and its model files by plain rounding."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from embgemma.export.checkpoint.checkpoint import read_checkpoint
from embgemma.export.convert import convert
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embgemma.export.checkpoint.checkpoint import Checkpoint
    from embgemma.kernels.model_file import Scheme


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny checkpoint: not to be changed."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_source(tiny_folder: Path) -> Checkpoint:
    """That checkpoint, read."""
    return read_checkpoint(tiny_folder)


@pytest.fixture(scope="session")
def rounded(tiny_folder: Path) -> Callable[[Scheme], Path]:
    """Gives its model file in a scheme, each weight rounded by itself."""

    @cache
    def path(scheme: Scheme) -> Path:
        made = tiny_folder.parent / scheme
        made.mkdir()
        return convert(tiny_folder, made / "model.safetensors", scheme, calibrated=False)

    return path
