"""The command that measures a Python process to its first vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embgemma.benchmarks.speed import first_vector
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_tells_time_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_vector, "TOKENS", 8)
    path = tiny.write_model(tmp_path / "model.safetensors", scheme="int8")
    assert first_vector.main([str(path), "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12].strip() for line in lines[:3]] == ["load", "first text", "best of late"]
    assert all(float(line.split()[-2]) > 0 for line in lines)
