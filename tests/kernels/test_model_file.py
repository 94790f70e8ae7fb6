"""A model file is read as it was written. test_damaged_files.py reads those that are cut, corrupt or hostile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.model_file import read_model_file
from tests.kernels.changed_file import SMALLEST as CONFIG
from tests.kernels.changed_file import TOKENIZER_MODEL, as_text, join, split, write_smallest

if TYPE_CHECKING:
    from pathlib import Path

SCHEMES = ("float32", "int8", "balanced", "mixed", "int4")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_smallest(tmp_path / "good.safetensors")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tokenizer_model", [b"", TOKENIZER_MODEL])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, scheme: Any, tokenizer_model: bytes) -> None:
    path = tmp_path / "model.safetensors"
    write_synthetic_model(path, CONFIG, scheme, tokenizer_model=tokenizer_model)
    model = read_model_file(path)
    assert (model.path, model.config, model.scheme) == (path, CONFIG, scheme)
    assert model.prompts["query"] == "task: search result | query: "
    assert (model.default_prompt_name, model.similarity_fn_name) == (None, "cosine")
    published = load_file(path)  # the published library reads the same names and values
    stored_tokenizer = published.pop("tokenizer.model", None)
    assert (stored_tokenizer is None) == (model.tokenizer_model is None) == (not tokenizer_model)
    assert model.tokenizer_model is None or bytes(model.tokenizer_model) == tokenizer_model
    assert published.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(tensor, published[name], strict=True)
        assert tensor.ctypes.data % 64 == 0
        assert not tensor.flags.writeable


def test_the_default_prompt_is_read(good: Path) -> None:
    header, data = split(good)
    header["__metadata__"]["default_prompt_name"] = '"query"'
    assert read_model_file(join(good, as_text(header), data)).default_prompt_name == "query"


def test_the_scheme_is_a_label(good: Path) -> None:
    header, data = split(good)
    header["__metadata__"]["scheme"] = "int3"
    assert read_model_file(join(good, as_text(header), data)).scheme == "int3"


def test_a_second_model_of_the_family_fits(tmp_path: Path) -> None:
    config = replace(CONFIG, layers=2, hidden=128, heads=4, kv_heads=2, vocab=128, full_attention_layers=(0, 1))
    path = tmp_path / "other.safetensors"
    write_synthetic_model(path, config, "int8")
    assert read_model_file(path).config == config
