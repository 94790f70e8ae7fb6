"""A LoRA adapter is added to the weights of its base as peft does it, wherever the base lies, or refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.cli.main import main
from embgemma.export.checkpoint.checkpoint import read_checkpoint
from embgemma.kernels.errors import CheckpointError
from embgemma.kernels.model_file import read_model_file
from tests import tiny
from tests.export.checkpoint.test_checkpoint import edit

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = replace(tiny.CONFIG, hidden=192)  # transformers wants a multiple of the number of heads
RANK, ALPHA = 4, 6
SHAPES = {
    "self_attn.q_proj": (CONFIG.q_width, CONFIG.hidden),
    "self_attn.v_proj": (CONFIG.kv_width, CONFIG.hidden),
    "mlp.down_proj": (CONFIG.hidden, CONFIG.ffn),
}
MODULES = {f"layers.{i}.{name}": shape for i in range(CONFIG.layers) for name, shape in SHAPES.items()}
TARGETS = ["q_proj", "v_proj", "down_proj"]


def write_adapter(folder: Path, base: object = None, prefix: str = "base_model.model.", **changes: Any) -> Path:
    """An adapter for three kinds of matrices; some keys of its config are changed."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    tensors = {}
    for module, (out_features, in_features) in MODULES.items():
        for side, shape in (("A", (RANK, in_features)), ("B", (out_features, RANK))):
            tensors[f"{prefix}{module}.lora_{side}.weight"] = rng.standard_normal(shape).astype(np.float32)
    tiny.write_tensors(folder / "adapter_model.safetensors", tensors)
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": TARGETS,
        "bias": "none",
        "base_model_name_or_path": str(base),
        "use_dora": False,
        "modules_to_save": None,
        "fan_in_fan_out": False,
    }
    tiny.write_json(folder / "adapter_config.json", {**config, **changes})
    return folder


def check_added(folder: Path, factors: dict[str, float] | None = None, base: Path | None = None) -> None:
    """Checks every weight. Factors are by the end of a module's name; others are ALPHA / RANK."""
    found = read_checkpoint(folder, base=base).weights
    rng = np.random.default_rng(3)
    expected: dict[str, Any] = {**tiny.encoder_tensors(CONFIG)}
    for module, (out_features, in_features) in MODULES.items():
        down, up = rng.standard_normal((RANK, in_features)), rng.standard_normal((out_features, RANK))
        by_name = (factor for name, factor in (factors or {}).items() if module.endswith(name))
        expected[f"{module}.weight"] = expected[f"{module}.weight"] + next(by_name, ALPHA / RANK) * (up @ down)
    for name, tensor in expected.items():
        np.testing.assert_allclose(found.read(name), tensor, rtol=0, atol=2e-5)
        np.testing.assert_allclose(found.read_rows(name, 3, 9), tensor[3:9], rtol=0, atol=2e-5)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "base", CONFIG)


def test_the_base_is_found_by_its_path_or_given(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_added(write_adapter(tmp_path / "named", base))
    monkeypatch.chdir(tmp_path)
    check_added(write_adapter(tmp_path / "relative", "base"))
    adapter = write_adapter(tmp_path / "hub", "google/embeddinggemma-300m")
    check_added(adapter, base=base)
    check_added(write_adapter(base / "inside", "google/embeddinggemma-300m"))
    with pytest.raises(CheckpointError, match=r"is 'google/embeddinggemma-300m', and .*no such folder here.*--base"):
        read_checkpoint(adapter)
    with pytest.raises(CheckpointError, match="no such folder; expected that of the adapter's base"):
        read_checkpoint(adapter, base=tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"there is no adapter_config\.json"):
        read_checkpoint(base, base=base)


def test_everything_else_is_that_of_the_base(base: Path, tmp_path: Path) -> None:
    found, expected = read_checkpoint(write_adapter(tmp_path / "adapter", base)), read_checkpoint(base)
    for name in ("config", "prompts", "tokenizer_model", "similarity_fn_name"):
        assert getattr(found, name) == getattr(expected, name)
    assert len(found.dense) == len(expected.dense) == 2


def test_an_adapter_may_lie_beside_its_base(base: Path) -> None:
    write_adapter(base, "google/embeddinggemma-300m")
    with pytest.warns(UserWarning, match="added to the weights beside it"):
        check_added(base)


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_an_adapter_may_lie_instead_of_its_base(base: Path, tmp_path: Path, place: str) -> None:
    """As sentence-transformers saves it: with modules.json and a tokenizer, without the encoder."""
    saved = tmp_path / "saved"
    shutil.copytree(base, saved)
    (saved / place).mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (saved / name).unlink()
    if place:
        for name in ("tokenizer.model", "tokenizer_config.json", "sentence_bert_config.json"):
            (saved / name).rename(saved / place / name)
        modules = json.loads((saved / "modules.json").read_text())
        tiny.write_json(saved / "modules.json", [{**modules[0], "path": place}, *modules[1:]])
    edit(saved / place / "sentence_bert_config.json", max_seq_length=9)
    edit(saved / "config_sentence_transformers.json", prompts={"own": "prompt"})
    write_adapter(saved / place, base)
    check_added(saved)
    found = read_checkpoint(saved)
    assert (found.prompts, found.config.max_tokens) == ({"own": "prompt"}, 9)
    assert (found.encoder_folder, found.tokenizer_folder) == (base, saved / place)


FACTORS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "as it is": ({}, {}),
    "rank-stabilised": ({"use_rslora": True}, {"proj": ALPHA / RANK**0.5}),
    "an alpha of its own": ({"alpha_pattern": {"v_proj": 10}}, {"v_proj": 10 / RANK}),
    "by a pattern": ({"alpha_pattern": {r"layers\.[01]\..*q_proj": 3, "q_proj": 1}}, {"2.self_attn.q_proj": 1 / RANK}),
    "with an anchor": ({"alpha_pattern": {"^layers.0.mlp.down_proj": 2}}, {"0.mlp.down_proj": 2 / RANK}),
    "fan-in first, which linear layers ignore": ({"fan_in_fan_out": True}, {}),
    "ranks by pattern": ({"r": 64, "rank_pattern": {".*": RANK}}, {}),
    "a target that is a pattern": ({"target_modules": ".*proj"}, {}),
    "settings of later versions, unused": ({"new": None, "other": {}, "third": False}, {}),
}


@pytest.mark.parametrize("case", FACTORS)
def test_settings_of_the_adapter_give_its_factors(base: Path, tmp_path: Path, case: str) -> None:
    changes, factors = FACTORS[case]
    if case == "by a pattern":
        factors = {**factors, "q_proj": 3 / RANK}
    check_added(write_adapter(tmp_path / "adapter", base, **changes), factors)


def test_the_names_of_a_language_model_are_those_of_its_encoder(base: Path, tmp_path: Path) -> None:
    check_added(write_adapter(tmp_path / "adapter", base, prefix="base_model.model.model."))


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "another method": ("peft_type", {"peft_type": "IA3"}),
    "weights by direction": ("use_dora", {"use_dora": True}),
    "biases": ("bias", {"bias": "lora_only"}),
    "biases of its own": ("lora_bias", {"lora_bias": True}),
    "whole modules": ("modules_to_save", {"modules_to_save": ["embed_tokens"]}),
    "tokens": ("trainable_token_indices", {"trainable_token_indices": [1]}),
    "repeated layers": ("layer_replication", {"layer_replication": [[0, 2]]}),
    "a base that was changed": ("init_lora_weights", {"init_lora_weights": "pissa"}),
    "what is not known": ("new_setting", {"new_setting": 1}),
    "no rank": ("r is None", {"r": None}),
    "another rank": ("shapes", {"r": 8}),
    "another rank of some": ("shapes", {"rank_pattern": {"v_proj": 2}}),
    "no alpha": ("lora_alpha", {"lora_alpha": None}),
    "ranks as a list": ("rank_pattern", {"rank_pattern": [1]}),
    "a costly pattern": ("alpha_pattern", {"alpha_pattern": {"(a|a)*b": 1}}),
    "a broken pattern": ("alpha_pattern", {"alpha_pattern": {"(": 1}}),
    "no targets": ("target_modules", {"target_modules": None}),
    "a target that matches nothing": ("'dense'.*nothing for any", {"target_modules": [*TARGETS, "dense"]}),
    "a target that has no tensors": ("'o_proj'.*nothing for layers.0", {"target_modules": [*TARGETS, "o_proj"]}),
    "embeddings": ("'embed_tokens'", {"target_modules": [*TARGETS, "embed_tokens"]}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_adapters_are_refused_by_name(base: Path, tmp_path: Path, case: str) -> None:
    reason, changes = REFUSED[case]
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json: .*{reason}"):
        read_checkpoint(write_adapter(tmp_path / "adapter", base, **changes))


@pytest.mark.parametrize(
    "name",
    [
        *("layers.0.self_attn.q_norm.lora_A.weight", "layers.9.self_attn.q_proj.lora_A.weight", "lora_A.weight"),
        *("layers.0.self_attn.o_proj.lora_magnitude_vector.weight", "layers.0.self_attn.o_proj.bias", "lm_head.weight"),
        "embed_tokens.lora_embedding_A",
    ],
)
def test_tensors_that_match_nothing_are_refused(base: Path, tmp_path: Path, name: str) -> None:
    folder = write_adapter(tmp_path / "adapter", base)
    tiny.write_tensors(folder / "adapter_model.safetensors", {f"base_model.model.{name}": np.zeros((4, 4), np.float32)})
    with pytest.raises(CheckpointError, match=r"adds to no matrix|has no tensors"):
        read_checkpoint(folder)


def test_half_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", base)
    zeros = {"layers.0.mlp.down_proj.lora_A.weight": np.zeros((RANK, CONFIG.ffn), np.float32)}
    tiny.write_tensors(folder / "adapter_model.safetensors", zeros)
    edit(folder / "adapter_config.json", target_modules="down_proj")
    with pytest.raises(CheckpointError, match="shapes"):
        read_checkpoint(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: .*safetensors alone"):
        read_checkpoint(folder)


def test_an_adapter_among_the_weights_is_refused(base: Path) -> None:
    tensors = tiny.encoder_tensors(CONFIG)
    tensors["layers.0.mlp.down_proj.base_layer.weight"] = tensors.pop("layers.0.mlp.down_proj.weight")
    tensors["layers.0.mlp.down_proj.lora_A.default.weight"] = np.zeros((RANK, CONFIG.ffn), np.float32)
    tiny.write_tensors(base / "model.safetensors", {f"base_model.model.{name}": tensors[name] for name in tensors})
    with pytest.raises(CheckpointError, match="adapter is among the weights; merge"):
        read_checkpoint(base)


def test_an_adapter_of_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(base, "none")
    with pytest.raises(CheckpointError, match="has an adapter itself"):
        read_checkpoint(write_adapter(tmp_path / "adapter", base))


def test_the_command_takes_the_base(base: Path, tmp_path: Path) -> None:
    adapter, output = write_adapter(tmp_path / "adapter", "hub/name"), tmp_path / "model.safetensors"
    arguments = ["convert", str(adapter), "-o", str(output), "--scheme", "float32"]
    assert main(arguments) == 1
    assert main([*arguments, "--base", str(base)]) == 0
    assert read_model_file(output).config == CONFIG


PEFT: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {r"layers\.1\..*": 2}, "alpha_pattern": {"v_proj": 3, "layers.0.mlp.down_proj": 5}},
    "fan-in first": {"fan_in_fan_out": True},
    "all linear layers": {"target_modules": "all-linear"},
    "some layers": {"target_modules": r"layers\.[02]\.self_attn\.[qo]_proj"},
    "all but some": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", PEFT)
def test_weights_are_those_that_peft_merges(base: Path, tmp_path: Path, case: str) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    import torch

    torch.manual_seed(1)
    model = transformers.AutoModel.from_pretrained(base, dtype=torch.float32)
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": TARGETS, "init_lora_weights": False, **PEFT[case]}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
    adapted.save_pretrained(tmp_path / "adapter")
    found = read_checkpoint(tmp_path / "adapter").weights
    merged = adapted.merge_and_unload().state_dict()
    assert merged.keys() == found.shapes.keys()
    for name, tensor in merged.items():
        np.testing.assert_allclose(found.read(name), tensor.numpy(), rtol=0, atol=1e-5)
