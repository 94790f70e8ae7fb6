"""The command that measures a Python process to its first vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embgemma.benchmarks.speed import first_vector
from embgemma.export.synthetic import write_synthetic_model
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_tells_time_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_vector, "TOKENS", 8)
    tokenizer = tiny.tokenizer_model()
    table = build_tokenizer_table(tokenizer).tobytes()
    path = tmp_path / "model.safetensors"
    write_synthetic_model(path, tiny.CONFIG, "int8", tokenizer_model=tokenizer, tokenizer_table=table)
    assert first_vector.main([str(path), "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12].strip() for line in lines[:3]] == ["load", "first text", "best of late"]
    assert all(float(line.split()[-2]) > 0 for line in lines)
