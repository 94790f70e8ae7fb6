"""The published layout is read in all its forms; what is missing, damaged or of another model is refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export.checkpoint.checkpoint import read_checkpoint
from embgemma.kernels.config import EMBEDDINGGEMMA_300M
from embgemma.kernels.errors import CheckpointError
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "checkpoint")


def edit(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; the value ... takes the key away."""
    raw = {**json.loads(path.read_text()), **changes}
    tiny.write_json(path, {key: value for key, value in raw.items() if value is not ...})


def refused(folder: Path, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(folder)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("shards", "prefix"), [(1, ""), (1, "model."), (3, ""), (3, "model.")])
def test_every_form_of_the_weights_reads_the_same(tmp_path: Path, dtype: tiny.Dtype, shards: int, prefix: str) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint", dtype=dtype, shards=shards, prefix=prefix)
    checkpoint = read_checkpoint(folder)
    assert checkpoint.config == tiny.CONFIG
    for name, tensor in tiny.encoder_tensors(tiny.CONFIG).items():
        np.testing.assert_array_equal(checkpoint.weights.read(name), tensor, strict=True)
    table = tiny.encoder_tensors(tiny.CONFIG)["embed_tokens.weight"]
    np.testing.assert_array_equal(checkpoint.weights.read_rows("embed_tokens.weight", 5, 9), table[5:9])
    for found, expected in zip(checkpoint.dense, tiny.dense_tensors(tiny.CONFIG), strict=True):
        np.testing.assert_array_equal(found.read("linear.weight"), expected)


def test_the_rest_of_the_checkpoint_is_read(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert checkpoint.prompts == tiny.PROMPTS
    assert (checkpoint.default_prompt_name, checkpoint.similarity_fn_name) == (None, "cosine")
    assert checkpoint.tokenizer_model == tiny.tokenizer_model()
    assert checkpoint.attention_scale == 1 / 8


def test_what_newer_libraries_save_means_the_same(folder: Path) -> None:
    """transformers 5 and sentence-transformers 6 write other keys for the same model."""
    expected = read_checkpoint(folder).config
    ropes = {
        "full_attention": {"rope_type": "default", "rope_theta": tiny.CONFIG.rope_theta_full},
        "sliding_attention": {"rope_type": "default", "rope_theta": tiny.CONFIG.rope_theta_sliding},
    }
    edit(folder / "config.json", rope_parameters=ropes, rope_theta=..., rope_local_base_freq=..., rope_scaling=...)
    pooling = {"embedding_dimension": tiny.CONFIG.hidden, "pooling_mode": "mean", "include_prompt": True}
    tiny.write_json(folder / "1_Pooling/config.json", pooling)
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = module["type"].replace("models", "sentence_transformer.modules.module")
    tiny.write_json(folder / "modules.json", modules)
    text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    encoder = {
        "transformer_task": "feature-extraction",
        "modality_config": text,
        "module_output_name": "token_embeddings",
    }
    tiny.write_json(folder / "sentence_bert_config.json", encoder)
    embedding = dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding")
    tiny.write_json(folder / "4_Normalize/config.json", embedding)
    edit(folder / "2_Dense/config.json", **embedding)
    edit(folder / "tokenizer_config.json", model_max_length=tiny.CONFIG.max_tokens)
    assert read_checkpoint(folder).config == expected


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"layer_types": ..., "_sliding_window_pattern": 2, "sliding_window_pattern": 2}, (1,)),
        ({"layer_types": ..., "_sliding_window_pattern": 6}, ()),
        ({"layer_types": ..., "_sliding_window_pattern": ..., "sliding_window_pattern": 1}, (0, 1, 2)),
        ({"layer_types": ..., "_sliding_window_pattern": ...}, ()),  # the default, 6, is more than there are layers
        ({"layer_types": ["full_attention"] * 3, "_sliding_window_pattern": 2}, (0, 1, 2)),
    ],
)
def test_full_attention_layers_are_listed_or_follow_a_pattern(
    folder: Path, changes: dict[str, Any], layers: tuple[int, ...]
) -> None:
    edit(folder / "config.json", **changes)
    assert read_checkpoint(folder).config.full_attention_layers == layers


@pytest.mark.parametrize(
    "changes",
    [{"eos_token_id": [tiny.CONFIG.eos_id, 106]}, {"rope_scaling": {"type": "default"}}, {"rope_scaling": None}],
)
def test_config_may_say_the_same_in_other_words(folder: Path, changes: dict[str, Any]) -> None:
    expected = read_checkpoint(folder).config
    edit(folder / "config.json", **changes)
    assert read_checkpoint(folder).config == expected


def test_buffers_of_old_versions_are_left_out(folder: Path) -> None:
    expected = read_checkpoint(folder).weights.shapes
    names = ("rotary_emb.inv_freq", "rotary_emb_local.original_inv_freq", "model.embeddings.position_ids")
    buffers = {name: np.zeros(4, np.float32) for name in names}
    tiny.write_tensors(folder / "model.safetensors", {**tiny.encoder_tensors(tiny.CONFIG), **buffers})
    assert read_checkpoint(folder).weights.shapes == expected


def test_a_step_of_the_tokenizer_may_be_a_sequence_of_one(folder: Path) -> None:
    raw = tiny.tokenizer_json()
    for key, name in (("normalizer", "normalizers"), ("post_processor", "processors")):
        tiny.write_json(folder / "tokenizer.json", raw | {key: {"type": "Sequence", name: [raw[key]]}})
        read_checkpoint(folder)
        tiny.write_json(folder / "tokenizer.json", raw | {key: {"type": "Sequence", name: [raw[key]] * 2}})
        refused(folder, key)


@pytest.mark.parametrize("window", [257, 129])
def test_a_window_that_an_old_library_halved_is_refused_naming_the_override(folder: Path, window: int) -> None:
    edit(folder / "config.json", sliding_window=window)
    refused(folder, rf"sliding_window is {window}.*--sliding-window 512")
    assert read_checkpoint(folder, sliding_window=512).config.window == 256


def test_texts_are_as_long_as_sentence_transformers_allows(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=10)
    assert read_checkpoint(folder).config.max_tokens == 10
    edit(folder / "sentence_bert_config.json", max_seq_length=1 << 40)
    with pytest.warns(UserWarning, match=f"but texts are cut at {tiny.CONFIG.max_tokens}"):
        assert read_checkpoint(folder).config.max_tokens == tiny.CONFIG.max_tokens


UNSUPPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "another architecture": ("model_type", {"model_type": "bert"}),
    "causal attention": ("use_bidirectional_attention", {"use_bidirectional_attention": False}),
    "attention missing": ("use_bidirectional_attention", {"use_bidirectional_attention": ...}),
    "another activation": ("hidden_activation", {"hidden_activation": "silu"}),
    "attention biases": ("attention_bias", {"attention_bias": True}),
    "capped scores": ("attn_logit_softcapping", {"attn_logit_softcapping": 50.0}),
    "capped logits": ("final_logit_softcapping", {"final_logit_softcapping": 30.0}),
    "scaled rope": ("rope_scaling", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "scaled rope, newly": (
        "rope_parameters",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}}},
    ),
    "one rope for all, newly": ("rope_parameters", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "another kind of layer": ("layer_types", {"layer_types": ["chunked_attention"] * 3}),
    "layer kinds for other layers": ("layer_types", {"layer_types": ["full_attention"]}),
    "layer kinds not strings": ("layer_types", {"layer_types": [[], {}, None]}),
    "no pattern": ("sliding_window_pattern", {"layer_types": ..., "sliding_window_pattern": 0}),
    "a pattern that is not read": ("_sliding_window_pattern is 2", {"layer_types": ..., "_sliding_window_pattern": 2}),
    "two patterns": (
        "_sliding_window_pattern is 6",
        {"layer_types": ..., "_sliding_window_pattern": 6, "sliding_window_pattern": 2},
    ),
    "no window": ("sliding_window", {"sliding_window": None}),
    "no head size": ("head_dim", {"head_dim": ...}),
    "layers not an integer": ("num_hidden_layers", {"num_hidden_layers": 3.0}),
    "layers negative": ("num_hidden_layers", {"num_hidden_layers": -3}),
    "eps a truth": ("rms_norm_eps", {"rms_norm_eps": True}),
    "eps zero": ("rms_norm_eps", {"rms_norm_eps": 0}),
    "no end token": ("eos_token_id", {"eos_token_id": []}),
    "an end token that is none": ("eos_token_id", {"eos_token_id": ["1", 1]}),
    "a width that the engine does not do": ("hidden", {"hidden_size": 100}),
    "a smaller vocabulary": ("embed_tokens.weight.*shape", {"vocab_size": 960}),
    "a wider feed-forward": ("mlp.*shape", {"intermediate_size": 256}),
    "a layer less": ("no place for tensors 'layers.2", {"num_hidden_layers": 2, "layer_types": ...}),
    "a layer more": ("missing.*layers.3", {"num_hidden_layers": 4, "layer_types": ...}),
}


# By file: settings that change vectors, or that may.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "config.json": [
        {"partial_rotary_factor": 0.5},
        {"quantization_config": {"bits": 4}},
        {"auto_map": {"AutoModel": "modeling.Mine"}},
    ],
    "sentence_bert_config.json": [
        {"do_lower_case": True},
        {"query_length": 32},
        {"processing_kwargs": {"text": {"max_length": 8}}},
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"model_args": {"num_hidden_layers": 2}},
        {"new_setting": 1},
    ],
    "config_sentence_transformers.json": [{"truncate_dim": 64}, {"model_type": "SparseEncoder"}],
    "1_Pooling/config.json": [{"pooling_mode_cls_token": 2}, {"new_setting": 1}],
    "2_Dense/config.json": [
        {"use_residual": True},
        {"module_input_name": "token_embeddings"},
        {"activation_function": "mine.Identity"},
        {"new_setting": 1},
    ],
    "4_Normalize/config.json": [{"module_input_name": "token_embeddings"}, {"new_setting": 1}],
    "tokenizer_config.json": [
        {"tokenizer_class": "LlamaTokenizer"},
        {"add_bos_token": True, "add_eos_token": False},
        {"truncation_side": "left"},
        {"split_special_tokens": True},
        {"bos_token": "<h1>"},
        {"additional_special_tokens": ["<new>"]},
    ],
}


@pytest.mark.parametrize(("name", "changes"), [(name, each) for name in SETTINGS for each in SETTINGS[name]])
def test_settings_that_change_vectors_are_refused(folder: Path, name: str, changes: dict[str, Any]) -> None:
    if not (folder / name).exists():
        tiny.write_json(folder / name, {})
        read_checkpoint(folder)
    edit(folder / name, **changes)
    with pytest.raises(CheckpointError, match=rf"{name}: .*{[*changes][-1]}"):
        read_checkpoint(folder)


@pytest.mark.parametrize("raw", [None, {}, {"add_bos_token": True}, {"add_eos_token": True}])
def test_without_tokenizer_json_the_ends_of_a_text_must_be_asked_for(folder: Path, raw: dict[str, bool] | None) -> None:
    """transformers 5 then puts around a text what tokenizer_config.json asks for, and nothing by itself."""
    path = folder / "tokenizer_config.json"
    path.unlink()
    if raw is not None:
        tiny.write_json(path, raw)
    refused(folder, r"tokenizer_config\.json: it has .* of add_bos_token and add_eos_token")
    tiny.write_json(folder / "tokenizer.json", tiny.tokenizer_json())
    if not raw:
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "changes",
    [{"type": "mine.Transformer"}, {"name": "1"}, {"kwargs": ["task"]}, {"new": 1}],
)
def test_modules_of_another_kind_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    tiny.write_json(folder / "modules.json", [{**modules[0], **changes}, *modules[1:]])
    with pytest.raises(CheckpointError, match=r"modules\.json: .*" + [*changes][-1]):
        read_checkpoint(folder)


MODULES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pooling by the first token": ("1_Pooling", "pooling", {"pooling_mode_cls_token": True}),
    "pooling by another mode": ("1_Pooling", "pooling", {"pooling_mode": "lasttoken"}),
    "pooling missing": ("1_Pooling", "pooling", {"pooling_mode_mean_tokens": False}),
    "pooling without the prompt": ("1_Pooling", "pooling", {"include_prompt": False}),
    "pooling of another width": ("1_Pooling", "features", {"word_embedding_dimension": 64}),
    "a dense layer with bias": ("2_Dense", "bias", {"bias": True}),
    "a dense layer that bends": ("2_Dense", "activation_function", {"activation_function": "torch.nn.Tanh"}),
    "a dense layer of another width": ("3_Dense", "in_features", {"in_features": 64}),
    "a dense layer of another shape": ("2_Dense", "shape", {"out_features": 64}),
}


@pytest.mark.parametrize("case", [*UNSUPPORTED, *MODULES])
def test_other_models_are_refused_naming_what_differs(folder: Path, case: str) -> None:
    module, reason, changes = MODULES[case] if case in MODULES else ("", *UNSUPPORTED[case])
    edit(folder / module / "config.json", **changes)
    refused(folder, reason)


@pytest.mark.parametrize("kinds", [[0], [0, 2, 3, 4], [1, 0, 2, 3, 4], [0, 1, 2, 4], [0, 1, 3, 2, 4], []])
def test_another_order_of_modules_is_refused(folder: Path, kinds: list[int]) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    tiny.write_json(folder / "modules.json", [modules[i] for i in kinds])
    refused(folder, r"modules|dense layers end|in_features")


MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "modules.json",
    "config_sentence_transformers.json",
    "tokenizer.model",
)
MODULE_FILES = (
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Dense/model.safetensors",
)


@pytest.mark.parametrize("name", [*MODEL_FILES, *MODULE_FILES])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such folder")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "this is a file; give the folder")


@pytest.mark.parametrize("name", ["config.json", "modules.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
def test_damaged_json_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    refused(folder, name)


@pytest.mark.parametrize(
    "changes",
    [{"prompts": []}, {"prompts": {"query": 1}}, {"default_prompt_name": "none"}, {"default_prompt_name": []}],
)
def test_odd_prompts_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder / "config_sentence_transformers.json", **changes)
    refused(folder, "prompt")


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_truncated_weights_are_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, r"model\.safetensors")


def test_a_tokenizer_that_is_not_one_is_refused(folder: Path) -> None:
    (folder / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(folder, r"tokenizer\.model.*not a sentencepiece model")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop("norm.weight"), "missing: 'norm.weight'"),
        (lambda tensors: tensors.update({"layers.0.self_attn.q_proj.bias": np.zeros(192)}), "q_proj.bias"),
        (lambda tensors: tensors.update({"norm.weight": np.zeros((2, 64))}), "norm.weight.*shape"),
        (lambda tensors: tensors.update({"norm.weight": np.float32(1)}), "norm.weight.*shape"),
    ],
)
def test_other_tensors_are_refused(folder: Path, change: Callable[[dict[str, Any]], object], reason: str) -> None:
    tensors = tiny.encoder_tensors(tiny.CONFIG)
    change(tensors)
    tiny.write_tensors(folder / "model.safetensors", tensors)
    refused(folder, reason)


def test_weights_that_are_not_floating_point_are_refused(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content.replace(b'"dtype":"F32"', b'"dtype":"I32"'))
    refused(folder, r"I32.*quantised")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_when_read(tmp_path: Path, dtype: tiny.Dtype, value: float) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    tensors = tiny.encoder_tensors(tiny.CONFIG)
    tensors["layers.1.mlp.up_proj.weight"][3, 5] = value
    tiny.write_tensors(folder / "model.safetensors", tensors, dtype)
    checkpoint = read_checkpoint(folder)
    checkpoint.weights.read_rows("layers.1.mlp.up_proj.weight", 0, 3)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight.*NaN or infinity"):
        checkpoint.weights.read("layers.1.mlp.up_proj.weight")


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({}, "weight_map"),
        ({"weight_map": {}}, "weight_map"),
        ({"weight_map": {"norm.weight": "../secret.safetensors"}}, "not the name of a file"),
        ({"weight_map": {"norm.weight": "none.safetensors"}}, "none.safetensors"),
        ({"weight_map": {"other": "model-00001-of-00002.safetensors"}}, "'other' is missing"),
        ([], "weight_map"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, index: Any, reason: str) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint", shards=2)
    tiny.write_json(folder / "model.safetensors.index.json", index)
    refused(folder, reason)


def test_the_published_checkpoint_has_the_shapes_we_know(checkpoint: Path) -> None:
    found = read_checkpoint(checkpoint)
    assert found.config == EMBEDDINGGEMMA_300M
    assert found.attention_scale == 1 / 16
    assert found.prompts["query"] == "task: search result | query: "
