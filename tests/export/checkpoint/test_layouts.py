"""Checkpoints laid out in other ways than the published one: read as sentence-transformers does, or refused by name."""

from __future__ import annotations

import gzip
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export.checkpoint.checkpoint import read_checkpoint
from embgemma.export.checkpoint.folds import folded_matrix
from tests import tiny
from tests.export.checkpoint.test_checkpoint import edit, refused

if TYPE_CHECKING:
    from pathlib import Path

TRANSFORMER, POOLING, DENSE, DENSE2, NORMALIZE = range(5)  # the modules of the tiny checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "checkpoint")


def keep(folder: Path, *modules: int) -> None:
    """Keeps only these modules, in this order."""
    listed = json.loads((folder / "modules.json").read_text())
    tiny.write_json(folder / "modules.json", [listed[i] for i in modules])


def head(folder: Path) -> Any:
    return folded_matrix(read_checkpoint(folder), "head")


@pytest.mark.parametrize("place", ["0_Transformer", "./parts/encoder/"])
def test_the_encoder_may_have_a_folder_of_its_own(folder: Path, place: str) -> None:
    expected = read_checkpoint(folder)
    encoder = folder / place
    encoder.mkdir(parents=True)
    tokenizer = ("tokenizer.model", "tokenizer_config.json")
    for name in ("config.json", "model.safetensors", "sentence_bert_config.json", *tokenizer):
        (folder / name).rename(encoder / name)
    modules = json.loads((folder / "modules.json").read_text())
    tiny.write_json(folder / "modules.json", [{**modules[0], "path": place}, *modules[1:]])
    found = read_checkpoint(folder)
    assert (found.config, found.prompts, found.tokenizer_model) == (
        expected.config,
        expected.prompts,
        expected.tokenizer_model,
    )
    assert found.encoder_folder == encoder
    np.testing.assert_array_equal(found.weights.read("norm.weight"), expected.weights.read("norm.weight"))


@pytest.mark.parametrize("place", ["../outside", "/outside", "a/../../b", ".."])
@pytest.mark.parametrize("module", [TRANSFORMER, DENSE])
def test_no_module_lies_outside(folder: Path, module: int, place: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[module]["path"] = place
    tiny.write_json(folder / "modules.json", modules)
    refused(folder, r"modules\.json: path .* leaves the folder")


def test_dense_layers_may_be_missing_one_or_several(folder: Path) -> None:
    both = head(folder)
    first, second = tiny.dense_tensors(tiny.CONFIG)
    keep(folder, TRANSFORMER, POOLING, NORMALIZE)
    np.testing.assert_array_equal(head(folder), np.eye(tiny.CONFIG.hidden))
    square = folder / "5_Dense"
    shutil.copytree(folder / "2_Dense", square)
    edit(square / "config.json", out_features=tiny.CONFIG.hidden)
    weight = (second @ first).astype(np.float32)
    tiny.write_tensors(square / "model.safetensors", {"linear.weight": weight})
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"idx": 5, "name": "5", "path": "5_Dense", "type": "sentence_transformers.models.Dense"}
    dropout = {"idx": 6, "name": "6", "path": "6_Dropout", "type": "sentence_transformers.models.Dropout"}
    tiny.write_json(folder / "6_Dropout/config.json", {"dropout": 0.1})
    tiny.write_json(folder / "modules.json", [*modules[:2], dropout, dense, modules[2]])
    np.testing.assert_allclose(head(folder), both, atol=1e-5)


@pytest.mark.parametrize("modules", [(0, 1, 2, 3), (0, 1), (0, 1, 4, 2, 3)])
def test_without_normalisation_at_the_end_there_is_a_note(folder: Path, modules: tuple[int, ...]) -> None:
    keep(folder, *modules)
    with pytest.warns(UserWarning, match=r"modules\.json: no Normalize comes last"):
        read_checkpoint(folder)
    edit(folder / "config_sentence_transformers.json", similarity_fn_name="dot")
    with pytest.warns(UserWarning, match="no Normalize"):
        refused(folder, "similarity_fn_name is 'dot'")


def test_a_plain_encoder_is_averaged_as_sentence_transformers_does(folder: Path) -> None:
    for path in [*folder.glob("*_*/"), folder / "modules.json", folder / "sentence_bert_config.json"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(folder, r"modules\.json: the file is missing")  # prompts are there: part of a checkpoint was lost
    (folder / "config_sentence_transformers.json").unlink()
    with pytest.warns(UserWarning, match=r"there is no modules\.json.*without the dense layers"):
        found = read_checkpoint(folder)
    assert (found.dense, found.prompts, found.default_prompt_name) == ((), {}, None)
    edit(folder / "config.json", architectures=["Gemma3ForCausalLM"])
    refused(folder, "of the last token")


def test_a_note_is_an_error_where_a_user_makes_it_one(folder: Path) -> None:
    keep(folder, TRANSFORMER, POOLING)
    with pytest.raises(UserWarning, match="no Normalize"):  # as this test run does
        read_checkpoint(folder)


@pytest.mark.parametrize("prefix", ["0.auto_model.", "base_model.model.", "model.language_model.", "encoder."])
def test_any_prefix_of_all_names_is_taken_off(tmp_path: Path, prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in tiny.encoder_tensors(tiny.CONFIG).items()}
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    tiny.write_tensors(folder / "model.safetensors", {**tensors, "lm_head.weight": tensors[prefix + "norm.weight"]})
    np.testing.assert_array_equal(read_checkpoint(folder).weights.read("norm.weight"), tensors[prefix + "norm.weight"])
    tiny.write_tensors(folder / "model.safetensors", {**tensors, "norm.weight": tensors[prefix + "norm.weight"]})
    refused(folder, "two tensors are called 'norm.weight'")
    tensors["other.embed_tokens.weight"] = tensors[prefix + "norm.weight"]
    tiny.write_tensors(folder / "model.safetensors", tensors)
    refused(folder, "missing|no place")


@pytest.mark.parametrize("place", [".", "2_Dense"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickled_weights_are_refused_with_the_way_out(folder: Path, place: str, name: str) -> None:
    (folder / place / "model.safetensors").rename(folder / place / name)
    refused(folder, r"pytorch_model\.bin: .*safetensors alone.*save_pretrained")


WEIGHTS = ("model-00002-of-00003.safetensors", "2_Dense/model.safetensors")
JSON_FILES = (
    "config.json",
    "modules.json",
    "2_Dense/config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
)


@pytest.mark.parametrize("name", [*WEIGHTS, *JSON_FILES, "model.safetensors.index.json", "tokenizer.model"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n".encode(), "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (gzip.compress(b"{}", mtime=0), "a gzip archive"),
    ],
    ids=["lfs", "html", "gzip"],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint", shards=3)
    (folder / name).write_bytes(content)
    refused(folder, rf"{name}: this is {kind}")
