"""ONNX models with a part of the vocabulary: covered texts keep their vectors, and all tokenizers of a bundle agree."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.tokenizer import Tokenizer
from tests import tiny

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from embgemma.export.onnx.text import text_session

COVERED = ["the of and", "to the in is", "that for it as was with", "\n\nthe  of"]
OTHERS = ["好 é not covered 😀", "<unk> <eos> ж", ""]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("part") / "checkpoint")
    tiny.write_json(folder / "tokenizer.json", tiny.tokenizer_json())
    (folder.parent / "texts.txt").write_text("\n".join(COVERED), encoding="utf-8")
    return folder


def export(checkpoint: Path, *arguments: Any) -> int:
    return main(["export-onnx", str(checkpoint), *map(str, arguments), "--no-calibration", "-q"])


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "bundle"
    assert export(checkpoint, "--bundle", folder, "--keep-texts", checkpoint.parent / "texts.txt") == 0
    return folder


@pytest.mark.parametrize("weights", ["float32", "int8", "balanced"])
def test_covered_texts_keep_their_vectors(weights: str, checkpoint: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.onnx", tmp_path / "part.onnx"
    assert export(checkpoint, "-o", whole, "--format", weights) == 0
    assert export(checkpoint, "-o", part, "--format", weights, "--keep-texts", checkpoint.parent / "texts.txt") == 0
    assert part.stat().st_size < whole.stat().st_size
    with embgemma.load(whole) as before, embgemma.load(part) as after:
        for text in COVERED:
            np.testing.assert_array_equal(before.encode(text), after.encode(text))
        assert np.isfinite(after.encode(OTHERS)).all()


def test_tokenizers_of_a_bundle_agree(bundle: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(bundle / "tokenizer.json"))
    ours = Tokenizer((bundle / "tokenizer.model").read_bytes(), 2, 1)
    rows = json.loads((bundle / "config.json").read_text("utf-8"))["vocab_size"]
    assert ours.vocab <= rows < tiny.PIECES
    assert theirs.get_vocab_size() == ours.vocab
    rng = random.Random(0)
    parts = [*COVERED, *OTHERS, *tiny.tokenizer_json()["model"]["vocab"], " ", "▁", "\t"]
    with embgemma.load(bundle) as model:
        for _ in range(500):
            text = "".join(rng.choices(parts, k=3))
            ids = ours.encode(text, tiny.CONFIG.max_tokens).ids
            assert theirs.encode(text).ids == ids
            assert model.token_ids(text, prompt="") == ids


def test_text_in(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_extensions")
    model = tmp_path / "text.onnx"
    assert export(checkpoint, "-o", model, "--text", "--keep-texts", checkpoint.parent / "texts.txt") == 0
    texts = [*COVERED, *OTHERS[:1]]
    given = text_session(model).run(None, {"text": np.array(texts, object)})[0]
    with embgemma.load(bundle) as by_ids:
        assert np.sum(given * by_ids.encode(texts), axis=1).min() > 0.9999
