"""A small tokenizer of Gemma's kind, and a small model file that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from embgemma.export.synthetic import write_synthetic_model
from embgemma.export.tokenizer_table import build_tokenizer_table
from embgemma.kernels.config import EncoderConfig
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = EncoderConfig(
    layers=2,
    hidden=64,
    ffn=64,
    heads=2,
    kv_heads=1,
    head_dim=64,
    vocab=tiny.PIECES,
    max_tokens=64,
    window=4,
    full_attention_layers=(1,),
    rope_theta_sliding=10_000.0,
    rope_theta_full=1_000_000.0,
    rms_norm_eps=1e-6,
    bos_id=2,
    eos_id=1,
)


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
