"""A small tokenizer of Gemma's kind, and a small model file that holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from embgemma.export.synthetic import write_synthetic_model
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = replace(tiny.CONFIG, layers=2, hidden=64, ffn=64, heads=2, full_attention_layers=(1,))


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    """A SentencePiece model with the settings of Gemma's."""
    return tiny.tokenizer_model()


@pytest.fixture(scope="session")
def tokenizer_table(tokenizer_model: bytes) -> bytes:
    """The table that the C engine tokenizes with, of the same model."""
    return build_tokenizer_table(tokenizer_model).tobytes()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: bytes, tokenizer_table: bytes) -> Path:
    """A small int8 model file of random weights with that tokenizer."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    write_synthetic_model(path, CONFIG, "int8", tokenizer_model=tokenizer_model, tokenizer_table=tokenizer_table)
    return path
