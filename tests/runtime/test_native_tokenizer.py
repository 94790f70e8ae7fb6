"""The tokenizer of the C engine as the default in Python. test_tokenizer.py checks its ids."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embgemma
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.errors import InputError, ModelFileError
from embgemma.kernels.native import library_problem
from embgemma.kernels.native_tokenizer import NativeTokenizer
from embgemma.tokenizer import Tokenizer
from tests import tiny
from tests.processes import PYTHON, run

from .conftest import CONFIG

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))

TEXTS = ["the of and", "", "x" * 500, "<bos> é\n\n 你好 \U0010ffff"]


def as_array(table: bytes) -> Any:
    return np.frombuffer(table, np.uint8)


def test_a_file_without_a_table_is_tokenized_by_sentencepiece(tmp_path: Path, model_path: Path) -> None:
    old_path = tmp_path / "old.safetensors"
    write_synthetic_model(old_path, CONFIG, "int8", tokenizer_model=tiny.tokenizer_model())
    with embgemma.load(model_path) as model, embgemma.load(old_path) as old:
        assert isinstance(model._text_tokenizer(), NativeTokenizer)
        assert isinstance(old._text_tokenizer(), Tokenizer)
        assert model.token_ids(TEXTS) == old.token_ids(TEXTS)
        with pytest.warns(embgemma.TruncationWarning) as warnings:
            vectors = model.encode(TEXTS), old.encode(TEXTS)
    np.testing.assert_array_equal(*vectors)
    assert len({str(warning.message) for warning in warnings}) == 1


def test_without_the_engine_a_file_with_a_table_is_tokenized_by_sentencepiece(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embgemma.batches.library_problem", lambda: "not built")
    with embgemma.load(model_path, backend="reference") as model:
        assert isinstance(model._text_tokenizer(), Tokenizer)


def test_embedding_text_never_imports_sentencepiece(model_path: Path) -> None:
    program = (
        "import embgemma, sys\n"
        f"vector = embgemma.load({str(model_path)!r}).encode_query('the of')\n"
        "assert vector.shape == (64,)\n"
        "assert 'sentencepiece' not in sys.modules\n"
    )
    run(PYTHON, "-c", program)


def flip(table: bytes, position: int) -> bytes:
    return table[:position] + bytes([table[position] ^ 1]) + table[position + 1 :]


@pytest.mark.parametrize(
    ("vocab", "change", "message"),
    [
        (CONFIG.vocab, lambda table: flip(table, 0), ".*(tokenizer table|again)"),  # magic
        (CONFIG.vocab, lambda table: flip(table, 8), ".*(tokenizer table|again)"),  # version
        (CONFIG.vocab, lambda table: flip(table, 100), ".*(tokenizer table|again)"),  # header
        (CONFIG.vocab, lambda table: table[: len(table) // 128 * 64], ".*(tokenizer table|again)"),
        (CONFIG.vocab, lambda table: table[:64], ".*(tokenizer table|again)"),
        (CONFIG.vocab, lambda _: b"x" * 65, r".*tokenizer\.table.* 65 bytes; expected a multiple of 64"),
        (CONFIG.vocab - 64, lambda table: table, ".*do not belong together"),
    ],
)
def test_a_damaged_or_foreign_table_is_named(
    tmp_path: Path, vocab: int, change: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embgemma.export.synthetic.check_model_file", lambda *_, **__: None)  # it would refuse them
    config, table, path = replace(CONFIG, vocab=vocab), change(tiny.tokenizer_table()), tmp_path / "wrong.safetensors"
    write_synthetic_model(path, config, "int8", tokenizer_model=tiny.tokenizer_model(), tokenizer_table=table)
    with pytest.raises(ModelFileError, match=r"wrong\.safetensors: " + message):
        embgemma.load(path)


def test_ids_that_are_not_pieces_cannot_be_put_around_texts() -> None:
    with pytest.raises(InputError, match="bos_id is 896"):
        NativeTokenizer(as_array(tiny.tokenizer_table()), 896, 1)


def test_it_may_be_used_from_several_threads_at_once() -> None:
    tokenizer = NativeTokenizer(as_array(tiny.tokenizer_table()), 2, 1)
    texts = [f"the of {i} and <h1> {'x' * i}" for i in range(300)]
    expected = tokenizer.encode_batch(texts, 100).split()
    with ThreadPoolExecutor(4) as callers:
        found = callers.map(lambda _: [tokenizer.encode(text, 100).ids for text in texts], range(4))
        assert [*found] == [expected] * 4


def test_it_outlives_the_last_other_reference_to_its_table() -> None:
    tokenizer = NativeTokenizer(as_array(bytes(bytearray(tiny.tokenizer_table()))), 2, 1)
    assert tokenizer.encode("the", 10) == NativeTokenizer(as_array(tiny.tokenizer_table()), 2, 1).encode("the", 10)
