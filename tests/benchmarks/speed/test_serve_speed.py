"""The command that measures the server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.benchmarks import results
from tests import tiny

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")


pytestmark = pytest.mark.filterwarnings("default::embgemma.notices.TruncationWarning")


def test_it_says_what_it_measured(tmp_path: Path, bench: Callable[..., str]) -> None:
    model, texts = tiny.write_model(tmp_path / "model.safetensors"), tmp_path / "texts.txt"
    texts.write_text("the of\n\nand to be it\n" + "too long " * 100, "utf-8")
    found = bench("serve", model, "--texts", texts, "--threads", 1, "--clients", 3, "--seconds", 0.5)
    speed = r"encode [\d,]+ tokens/s, server [\d,]+; time [\d.]+, processor time [\d.]+ of that of encode"
    assert re.search(rf"throughput  \d+ texts, \d+ tokens: {speed}", " ".join(found.split("\n")).replace("  " * 6, ""))
    assert re.search(r"^ +3 +0.5 +[\d,.]+ +[\d,.]+ +[\d,.]+ +200: [\d,]+ +\d+, \d+, \d+$", found, re.MULTILINE)


@pytest.mark.filterwarnings("ignore:.*was cut off")
def test_results_are_written(tmp_path: Path, bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model whose longest text is shorter than some of those that it gets."""
    monkeypatch.setattr(results, "CLIENTS", {1: 0.5, 4: 0.5})
    monkeypatch.setattr(results, "BULK", ())
    checkpoint, output = tiny.write_checkpoint(tmp_path / "tiny"), tmp_path / "RESULTS.md"
    bench("results", "serving", "--checkpoint", checkpoint, "--cache", tmp_path / "cache", "--output", output)
    text = output.read_text("utf-8")
    assert "## Serving and bulk" in text
    assert "- model: tiny, int8" in text
    assert len(re.findall(r"^\| +[14] \| +0.5 \|.* 200: [\d,]+ \|", text, re.MULTILINE)) == 2
