"""The command that measures the server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")


def test_it_says_what_it_measured(tmp_path: Path, bench: Callable[..., str]) -> None:
    model, texts = tiny.write_model(tmp_path / "model.safetensors"), tmp_path / "texts.txt"
    texts.write_text("the of\n\nand to be it\n", "utf-8")
    found = bench("serve", model, "--texts", texts, "--threads", 1, "--clients", 3, "--seconds", 0.5).splitlines()
    speed = r"encode [\d,]+ tokens/s, server [\d,]+; time [\d.]+, processor time [\d.]+ of that of encode"
    assert re.fullmatch(rf"\d+ texts, \d+ tokens: {speed}", found[0])
    each = r"[\d,.]+ requests/s, p50 [\d,]+ ms, p99 [\d,]+ ms; answers 200: [\d,]+"
    assert re.fullmatch(rf"3 clients, one text a request, 0.5 s: {each}", found[1])
    assert found[2].count(",") == 11
