"""The model file that the benchmark's tests run on, and the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.benchmarks.cli import main
from embgemma.kernels.model_file import ModelFile, Scheme


@pytest.fixture(scope="session")
def model_path(small_model: Callable[[Scheme], ModelFile]) -> Path:
    """A small model of random weights in the `mixed` scheme."""
    return small_model("mixed").path


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, which must end with this status; gives what it printed, or the error."""

    def run(*arguments: object, status: int = 0) -> str:
        assert main([str(argument) for argument in arguments]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run
