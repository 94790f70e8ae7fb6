"""Every command ends alike: an exit code, and one line."""

from __future__ import annotations

import warnings

import pytest

from embgemma.benchmarks import cli as bench
from embgemma.cli import main as embgemma
from embgemma.cli.exit import exit_code
from embgemma.kernels.errors import BackendError, InputError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("wrong"), 2, "wrong"),
        (BackendError("none"), 1, "none"),
        (FileNotFoundError(2, "No such file or directory", "a\x1b[31m"), 1, r"a\x1b[31m: No such file or directory"),
        (OSError(28, "No space left on device"), 1, "standard output: No space left on device"),
        (OSError("odd"), 1, "odd"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
@pytest.mark.parametrize("program", [embgemma.PROGRAM, bench.PROGRAM])
def test_an_error_is_a_code_and_a_line(
    program: str, error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        raise error

    assert exit_code(program, run) == code
    assert capsys.readouterr().err == f"{program}: {line}\n"


@pytest.mark.parametrize("program", [embgemma.PROGRAM, bench.PROGRAM])
def test_a_warning_is_a_line(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert exit_code(program, lambda: warnings.warn("odd", stacklevel=1) or 0) == 0
    assert capsys.readouterr().err == f"{program}: warning: odd\n"
