"""A small model file that holds a tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = replace(tiny.CONFIG, layers=2, hidden=64, ffn=64, heads=2, full_attention_layers=(1,))


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small int8 model file of random weights with the tokenizer of tests/tiny.py."""
    return tiny.write_model(tmp_path_factory.mktemp("model") / "small.safetensors", CONFIG, "int8")
