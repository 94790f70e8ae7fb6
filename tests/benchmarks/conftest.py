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
    """Runs the command, which must end well or fail; gives what it printed, or the error."""

    def run(*arguments: object, fails: bool = False) -> str:
        assert main([str(argument) for argument in arguments]) in ((1, 2) if fails else (0,))
        printed = capsys.readouterr()
        return printed.err if fails else printed.out

    return run
