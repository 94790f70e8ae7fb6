"""Bundles of an ONNX model: the manifest is true, and a bundle appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.kernels.errors import EmbgemmaError, InputError
from embgemma.tokenizer import Tokenizer
from tests import tiny

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from embgemma.export.onnx.bundle import export_bundle  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("bundle") / "checkpoint")
    tiny.write_json(folder / "tokenizer.json", tiny.tokenizer_json())
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "bundle"
    assert main(["export-onnx", str(checkpoint), "--bundle", str(folder), "--no-calibration"]) == 0
    return folder


def read_manifest(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text("utf-8"))


def test_files_are_those_of_the_manifest(bundle: Path, checkpoint: Path) -> None:
    manifest = read_manifest(bundle)
    names = {"README.md", "config.json", "onnx/model.onnx", "required_operators.config", "tokenizer.json"}
    names |= {"1_Pooling/config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"}
    names |= {"tokenizer.model", "tokenizer_config.json"}
    assert manifest["files"].keys() == names
    found = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert found == names | {"manifest.json"}
    for name, listed in manifest["files"].items():
        data = (bundle / name).read_bytes()
        assert listed == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["tokens"]["tokenizer"] == [
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
        "tokenizer.model",
    ]
    assert (bundle / "tokenizer.model").read_bytes() == (checkpoint / "tokenizer.model").read_bytes()
    limit = {"direction": "Right", "max_length": tiny.CONFIG.max_tokens, "strategy": "LongestFirst", "stride": 0}
    changed: dict[str, dict[str, Any]] = {
        "tokenizer.json": {"truncation": limit},
        "config.json": {"transformers.js_config": {"dtype": "fp32"}},
    }
    for name, keys in changed.items():
        before, after = (json.loads((folder / name).read_text("utf-8")) for folder in (checkpoint, bundle))
        assert after == {**before, **keys}


def test_an_app_can_go_by_the_manifest(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    tokens, model = manifest["tokens"], manifest["model"]
    assert (model["weights"], model["target"], model["needs"]) == ("int8", "onnxruntime", {"onnxruntime": "1.18"})
    assert (tokens["max"], tokens["pad_id"]) == (tiny.CONFIG.max_tokens, 0)
    assert manifest["prompts"] == tiny.PROMPTS
    tokenizer = Tokenizer((bundle / "tokenizer.model").read_bytes(), tokens["bos_id"], tokens["eos_id"])
    options = onnxruntime.SessionOptions()
    for key, value in model["session_config"].items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(bundle / model["file"], options)
    assert [value.name for value in session.get_inputs()] == [*model["inputs"]]
    assert len(manifest["examples"]) > 1
    for example in manifest["examples"]:
        ids = tokenizer.encode(example["prompt_and_text"], tokens["max"]).ids
        assert ids == example["input_ids"]
        inputs = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        vector = session.run([manifest["embedding"]["output"]], inputs)[0][0]
        assert vector.shape == (manifest["embedding"]["dimensions"],)
        np.testing.assert_allclose(vector[:8], example["embedding_begins"], atol=1e-2)


def test_a_bundle_that_takes_text_needs_no_other_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_extensions")
    export_bundle(checkpoint, tmp_path / "bundle", weights_format="float32", text=True, truncate_dim=64)
    manifest = read_manifest(tmp_path / "bundle")
    assert {*manifest["files"]} == {"README.md", "onnx/model.onnx", "required_operators.config"}
    assert manifest["tokens"]["tokenizer"] == "onnx/model.onnx"
    assert manifest["model"]["inputs"] == {"text": {"dtype": "string", "shape": ["batch_size"]}}
    assert manifest["model"]["needs"]["onnxruntime-extensions"] == "0.9"
    assert manifest["embedding"]["dimensions"] == 64


def test_a_bundle_is_replaced_when_told_to(bundle: Path, checkpoint: Path) -> None:
    arguments = ["export-onnx", str(checkpoint), "--bundle", str(bundle), "--no-calibration"]
    assert main(arguments) == 2
    arguments += ["--format", "float32"]  # quicker
    (bundle / "stale").write_text("")
    assert main([*arguments, "--force"]) == 0
    assert not (bundle / "stale").exists()
    assert embgemma.load(bundle / "onnx" / "model.onnx").encode("the of").shape == (tiny.CONFIG.hidden,)
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", "checkpoint"}


def test_only_bundles_are_replaced(checkpoint: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    (tmp_path / "file").write_text("")
    for name, problem in (("mine", "no bundle"), ("file", "a file"), ("none/bundle", "create it first")):
        with pytest.raises(InputError, match=problem):
            export_bundle(checkpoint, tmp_path / name, calibrated=False, force=True)
    assert (mine / "letter").read_text() == "dear"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "file"}


def test_a_failure_leaves_what_was_there(bundle: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (bundle / "manifest.json").read_bytes()
    monkeypatch.setattr("embgemma.export.onnx.verify.PLAIN_BOUNDS", {"float32": 1.1})
    for folder in (bundle, bundle.parent / "new"):
        with pytest.raises(EmbgemmaError, match="does not compute"):
            export_bundle(checkpoint, folder, weights_format="float32", force=True)
    assert (bundle / "manifest.json").read_bytes() == before
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", "checkpoint"}


def test_a_bundle_of_another_layout_is_the_same(checkpoint: Path, tmp_path: Path) -> None:
    other, encoder = tmp_path / "other", tmp_path / "other/0_Transformer"
    shutil.copytree(checkpoint, other)
    encoder.mkdir()
    for path in [*other.glob("*token*"), *(other / name for name in ("config.json", "model.safetensors"))]:
        path.rename(encoder / path.name)
    modules = json.loads((other / "modules.json").read_text())
    tiny.write_json(other / "modules.json", [{**modules[0], "path": "0_Transformer"}, *modules[1:]])
    for source in (checkpoint, other):
        bundle = tmp_path / source.parent.name / "bundle"
        bundle.parent.mkdir(exist_ok=True)
        export_bundle(source, bundle, calibrated=False)
    assert read_manifest(tmp_path / checkpoint.parent.name / "bundle") == read_manifest(bundle)
    with embgemma.load(bundle) as model:
        assert model.encode("the of and").shape == (tiny.CONFIG.hidden,)
