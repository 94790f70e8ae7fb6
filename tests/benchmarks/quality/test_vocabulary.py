"""The command that measures parts of the vocabulary, on a tiny model and a tiny set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.kernels.native import library_problem
from tests import tiny
from tests.benchmarks.tiny_sets import write_rows

TEXTS = ["in the north", "that was it", "on and on", "be with it", "not by the", "the", "to be", "it is that"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("matplotlib")
    words = dict.fromkeys(" ".join(TEXTS).split(), 1.0)
    monkeypatch.setattr("embgemma.export.vocabulary.keep.words_of", lambda _: words)
    monkeypatch.setenv("EMBGEMMA_EVALDATA", str(tmp_path))
    write_rows(tmp_path / "STS13.jsonl.gz", [{"s1": TEXTS[i], "s2": TEXTS[-i], "score": i} for i in range(len(TEXTS))])
    path = tmp_path / "whole.safetensors"
    tiny.write_model(path)
    return path


@pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))
def test_parts_are_measured_and_drawn(model: Path, tmp_path: Path, bench: Callable[..., str]) -> None:
    sizes = ["--pieces", "500,640", "--languages", "en", "--languages", "de"]
    report = bench("vocabulary", model, *sizes, "--plot", tmp_path / "a.svg", "--markdown")
    lines = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith(("| en", "| de"))]
    assert [(line[0].strip(), line[1].strip()) for line in lines] == [
        (language, pieces) for language in ("en", "de") for pieces in ("512", "640")
    ]
    assert {(line[3].strip(), line[4].strip()) for line in lines[1::2]} == {("100.00%", "0.00")}
    assert "megabytes of the file" in (tmp_path / "a.svg").read_text()
    assert bench("vocabulary", model, "--pieces", "640", "--no-scores", "--markdown").count("100.00%") == 1


def test_sets_are_needed(model: Path, bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBGEMMA_EVALDATA")
    assert "set EMBGEMMA_EVALDATA" in bench("vocabulary", model, fails=True)
