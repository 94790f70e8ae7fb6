"""`embgemma-bench` end to end on a small model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.benchmarks.cli import COMMANDS, main
from embgemma.benchmarks.harness.machine import Limits
from embgemma.kernels.backend import available_backends

QUICK = ["--lengths", "8,33", "--batch", "3", "--repeats", "2"]
MODULES = {"speed": "speed.bench", "roofline": "roofline.roofline"}


@pytest.mark.parametrize("backend", available_backends())
def test_json_of_a_whole_run(backend: str, model_path: Path, bench: Callable[..., str]) -> None:
    output = bench("--device", "cpu", "--model", model_path, "--backend", backend, "--json", *QUICK)
    found = json.loads(output)
    assert found["facts"]["backend"] == backend
    assert (found["scheme"], found["synthetic"]) == ("mixed", False)
    assert re.fullmatch(r"\d\.\d\d bits an element, [\d.]+ to [\d.]+ by row", found["table"])
    assert [row["shape"] for row in found["latencies"]] == [{"texts": 1, "tokens": 8}, {"texts": 1, "tokens": 33}]
    assert [row["shape"] for row in found["batches"]] == [{"texts": 3, "tokens": 32}, {"texts": 3, "tokens": 128}]
    assert all(row["timing"]["calls"] == 2 and row["timing"]["median"] > 0 for row in found["latencies"])
    assert (found["limits"] is not None) == (backend == "native")
    assert min(found["load_seconds"]) > 0
    assert str(model_path.parent) not in output


def test_threads_are_passed_on(model_path: Path, bench: Callable[..., str]) -> None:
    if "native" not in available_backends():
        pytest.skip("only the C engine has threads of its own, and this install has none")
    assert json.loads(bench("--model", model_path, "--threads", 1, "--json", *QUICK))["facts"]["threads"] == 1


def test_the_usual_lengths_are_those_that_the_model_takes(model_path: Path, bench: Callable[..., str]) -> None:
    found = json.loads(bench("--model", model_path, "--batch", 1, "--repeats", 1, "--json"))
    assert [row["shape"]["tokens"] for row in found["latencies"]] == [8, 16, 32, 64, 128]


def test_the_model_of_the_environment_is_used(
    model_path: Path, bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBGEMMA_MODEL", str(model_path))
    text = bench("--backend", "reference", *QUICK)
    assert "file mixed.safetensors" in text
    assert "not measured: the reference backend cannot" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "embgemma runs on the CPU only; use --device cpu"),
        (["--lengths", "8,x"], "expected a whole number of at least 1"),
        (["--lengths", "1"], "a text has at least 2 tokens"),
        (["--threads", "0"], "expected a whole number of at least 1"),
        (["--seconds", "nan"], "expected a number of seconds above 0"),
        (["--json", "--markdown"], "not allowed with argument"),
        (["cache", "--empty", "--cache", __file__], "test_command.py: this is a file; expected a folder"),
        (["speed", "--cache", __file__], "test_command.py: this is a file; expected a folder"),
        (["serve", "x", "--clients", "0"], "'0': expected a whole number of at least 1"),
        (["serve", "x", "--seconds", "0"], "expected a number of seconds above 0"),
        (["search", "x", "y", "--vectors", "-1"], "expected a whole number of at least 1"),
        (["bulk", "--cores", "x"], "expected a whole number of at least 1"),
        (["quality", "--dims", "256,x"], "expected a whole number of at least 1"),
        (["vocabulary", "x", "--pieces", "0"], "expected a whole number of at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["speed", "roofline"])
def test_a_limit_that_was_exceeded_is_doubted(
    command: str, model_path: Path, bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "native" not in available_backends():
        pytest.skip("only the C engine measures the limits")
    options = (command, "--model", model_path, *QUICK)
    for rate, doubted in ((1e18, False), (1.0, True)):
        limits = Limits(macs_per_second=rate, bytes_per_second=rate)
        monkeypatch.setattr(f"embgemma.benchmarks.{MODULES[command]}.limits_of", lambda *_, found=limits: (found, ""))
        assert ("of limit is above 100 %" in bench(*options)) == doubted


def test_an_unknown_command_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["foo"])
    error = capsys.readouterr().err
    assert "invalid choice: 'foo'" in error
    assert all(name in error for name in COMMANDS)


def test_errors_are_one_sentence_and_no_traceback(model_path: Path, tmp_path: Path, bench: Callable[..., str]) -> None:
    error = bench("--model", tmp_path / "none.safetensors", fails=True)
    assert "none.safetensors: cannot open the file" in error
    error = bench("--model", model_path, "--lengths", 129, fails=True)
    assert "--lengths has 129, but the model takes at most 128 tokens" in error
    error = bench("--model", model_path, "--backend", "reference", "--isa", "avx2", *QUICK, fails=True)
    assert "embgemma-bench: isa='avx2'" in error
    assert "Traceback" not in error
