"""A tiny checkpoint as sentence-transformers opens it, and converted. It needs torch, so not every machine has it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import embgemma
from embgemma.export.convert import convert
from tests import tiny

ROOT = Path(__file__).parents[3]

CONFIG = replace(tiny.CONFIG, hidden=192)  # transformers wants a multiple of the number of heads
TOKENIZER = {"tokenizer_class": "GemmaTokenizer", "model_max_length": CONFIG.max_tokens, "padding_side": "right"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("drop-in") / "checkpoint", CONFIG)
    tiny.write_json(folder / "tokenizer.json", tiny.tokenizer_json())
    tokens = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    tiny.write_json(folder / "tokenizer_config.json", {**TOKENIZER, **tokens})
    (folder / "4_Normalize").mkdir()
    return folder


@pytest.fixture(scope="session")
def model_path(folder: Path) -> Path:
    return convert(folder, folder.parent / "model.safetensors", "float32")


@pytest.fixture(scope="session")
def theirs(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        # transformers looks for a package `kernels`, and would find the folder.
        patch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != ROOT])
        library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
        return library.SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def ours(model_path: Path) -> embgemma.EmbeddingModel:
    return embgemma.load(model_path, threads=1)
