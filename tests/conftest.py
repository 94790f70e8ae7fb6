"""Fixtures that tests in every folder share: a small model of random weights, and the real one where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from embgemma.export.scheme import Scheme
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.config import EncoderConfig
from embgemma.model_file import ModelFile, read_model_file

# Small enough for the float64 reference, and with every feature of the real one: two kinds of attention layer, several
# query heads over one key/value head, texts longer than the window, widths that are not powers of two.
SMALL_CONFIG = EncoderConfig(
    layers=3,
    hidden=192,
    ffn=320,
    heads=3,
    kv_heads=1,
    head_dim=64,
    vocab=512,
    max_tokens=128,
    window=16,
    full_attention_layers=(2,),
    rope_theta_sliding=10_000.0,
    rope_theta_full=1_000_000.0,
    rms_norm_eps=1e-6,
    bos_id=2,
    eos_id=1,
)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scheme], ModelFile]:
    """Gives the small model in a scheme: random weights, no tokenizer."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def model(scheme: Scheme) -> ModelFile:
        path = folder / f"small.{scheme}.safetensors"
        write_synthetic_model(path, SMALL_CONFIG, scheme)
        return read_model_file(path)

    return model


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The folder of the published EmbeddingGemma-300M checkpoint."""
    return _folder_of("EMBGEMMA_CHECKPOINT")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of values that sentence-transformers computed from that checkpoint, in float32."""
    return _folder_of("EMBGEMMA_GOLDEN")


def _folder_of(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"the environment variable {variable} is not set")
    return Path(value)
