"""ONNX models that take text: the same vectors as by way of token ids, in ONNX Runtime with onnxruntime-extensions."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.kernels.errors import EmbgemmaError, InputError
from tests import tiny

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from embgemma.export.onnx.export import export_onnx  # noqa: E402
from embgemma.export.onnx.text import text_session  # noqa: E402

CONFIG = replace(tiny.CONFIG, max_tokens=40)

# Alone and padded, cut at the most tokens, of no token, and with spaces that count.
TEXTS = ["the of and", "", "é 你好 " * 50, "to in  is\n\nthat", "task: search result | query: it as was"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("text") / "checkpoint", CONFIG)


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    pytest.importorskip("onnxruntime_extensions")
    return export_onnx(folder, folder.parent / "text.onnx", "int8", text=True, calibrated=False).model


def test_texts_have_the_vectors_of_their_ids(model: Path, folder: Path) -> None:
    session = text_session(model)
    together = session.run(None, {"text": np.array(TEXTS, object)})[0]
    alone = np.concatenate([session.run(None, {"text": np.array([text], object)})[0] for text in TEXTS])
    by_ids = export_onnx(folder, folder.parent / "ids.onnx", "int8", calibrated=False).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", embgemma.TruncationWarning)
        expected = embgemma.load(by_ids).encode(TEXTS)
    assert np.sum(alone * expected, axis=1).min() > 0.99999
    assert np.sum(together * expected, axis=1).min() > 0.99999


def test_the_file_has_one_tokenizer_and_is_used_like_any_other(model: Path) -> None:
    stored = onnx.load(model)
    assert [(value.name, len(value.type.tensor_type.shape.dim)) for value in stored.graph.input] == [("text", 1)]
    tokenizers = [node for node in stored.graph.node if node.op_type == "SentencepieceTokenizer"]
    assert [node.attribute[0].s for node in tokenizers] == [tiny.tokenizer_model()]
    assert "tokenizer_model" not in {entry.key for entry in stored.metadata_props}
    with embgemma.load(model) as loaded:  # takes the tokenizer off, and needs no onnxruntime-extensions
        vectors = loaded.encode(TEXTS[:2])
        assert loaded.token_ids("the <bos> of")[2:] != loaded.token_ids("the of")[2:]
    given = text_session(model).run(None, {"text": np.array(TEXTS[:2], object)})[0]
    assert np.sum(vectors * given, axis=1).min() > 0.99999


def test_info(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["inputs", "text", "string", "(batch_size)"] in words
    assert ["needs", "onnxruntime", "1.18", "or", "newer,", "onnxruntime-extensions", "0.9", "or", "newer"] in words
    assert ["operator", "sets", "ai.onnx", "21,", "com.microsoft", "1,", "ai.onnx.contrib", "1"] in words


def test_bad_calls_leave_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="portable"):
        export_onnx(folder, output, target="portable", text=True)
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    assert main(["export-onnx", str(folder), "-o", str(output), "--text", "--no-calibration"]) == 1
    assert "[onnx-text]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wrong_tokenizer_is_not_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime_extensions")
    monkeypatch.setattr("embgemma.export.onnx.text._SMALLEST_COSINE", 1.1)
    with pytest.raises(EmbgemmaError, match="other vectors of texts"):
        export_onnx(folder, tmp_path / "model.onnx", "float32", text=True)
    assert not list(tmp_path.iterdir())
