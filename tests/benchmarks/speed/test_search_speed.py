"""The command that measures an index."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests import tiny


def test_it_says_what_it_measured(tmp_path: Path, bench: Callable[..., str]) -> None:
    model, texts = tiny.write_model(tmp_path / "model.safetensors"), tmp_path / "texts.txt"
    texts.write_text("the of.\n\nand to be it. " * 30, "utf-8")
    first, second = bench("search", model, texts, "--vectors", "70").splitlines()
    assert re.fullmatch(r"\d+ passages: encode .* s \(.*\), index .* s \(.*\); index / encode .* \(.*\)", first)
    assert re.fullmatch(r"70 vectors of 128 int8, .* MB: search .* ms \(.* ms of processor time\)", second)


def test_files_without_text_are_refused(tmp_path: Path, bench: Callable[..., str]) -> None:
    model, empty = tiny.write_model(tmp_path / "model.safetensors"), tmp_path / "empty.txt"
    empty.touch()
    assert "empty.txt: there is no text in it; name other files" in bench("search", model, empty, fails=True)
