"""The command that measures the C tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.benchmarks.speed import tokenizer_speed
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.native import library_problem
from tests import tiny

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))


def test_it_says_what_it_measured(tmp_path: Path, bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_speed, "HOSTILE_BYTES", 4096)
    path, texts = tiny.write_model(tmp_path / "model.safetensors"), tmp_path / "texts.txt"
    texts.write_text("the of\né\n", "utf-8")
    lines = bench("tokenizer", path, "--texts", texts).splitlines()
    assert lines[0].startswith("file: 2 texts, 8 bytes, ")
    names = [line.split("  ")[1] for line in lines[1:5]]
    assert names == ["C call alone", "C engine, batches", "C engine, one by one", "sentencepiece"]
    assert len(lines) == 6 + len(tokenizer_speed.HOSTILE)


def test_the_texts_that_come_along_are_of_four_kinds() -> None:
    kinds = tokenizer_speed.sample_texts()
    assert len(kinds) == 4
    assert all(sum(map(len, texts)) >= tokenizer_speed.LEAST_BYTES for texts in kinds.values())


def test_a_file_without_both_tokenizers_is_refused(tmp_path: Path, bench: Callable[..., str]) -> None:
    path = tmp_path / "model.safetensors"
    write_synthetic_model(path, tiny.CONFIG, "int8", tokenizer_model=tiny.tokenizer_model())
    assert "lacks tokenizer.table" in bench("tokenizer", path, fails=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x: No such file or directory"),
        (b"", "holds no text"),
        (b"\n\n", "holds no text"),
        (b"a\n\xff", "not valid UTF-8 (invalid start byte at byte 2)"),
    ],
)
def test_texts_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, bench: Callable[..., str], content: bytes | None, message: str
) -> None:
    path, texts = tiny.write_model(tmp_path / "model.safetensors"), tmp_path / "x"
    if content is not None:
        texts.write_bytes(content)
    error = bench("tokenizer", path, "--texts", texts, fails=True)
    assert message in error
    assert error.count("\n") == 1
    assert "Is a directory" in bench("tokenizer", path, "--texts", tmp_path, fails=True)
