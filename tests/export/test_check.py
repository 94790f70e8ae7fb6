"""What is written can be read and embeds a text. Else nothing is written, one error says why, the old file stays."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.cli.main import main
from embgemma.export.convert import convert
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.errors import CheckpointError, EmbgemmaError
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROMPTS = "config_sentence_transformers.json"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "checkpoint")


def set_key(path: Path, key: str, value: Any) -> None:
    tiny.write_json(path, {**json.loads(path.read_text()), key: value})


def scale_weights(folder: Path, name: str, factor: float) -> None:
    tensors = tiny.encoder_tensors(tiny.CONFIG)
    tensors[name] *= np.float32(factor)
    tiny.write_tensors(folder / "model.safetensors", tensors)


Damage = tuple["Callable[[Path], None]", str]
DAMAGES: dict[str, Damage] = {
    "zero": (lambda f: set_key(f / PROMPTS, "prompts", {"query": "a\0"}), f"{PROMPTS}: .*zero"),
    "300 prompts": (lambda f: set_key(f / PROMPTS, "prompts", {str(i): "" for i in range(300)}), f"{PROMPTS}: .*300"),
    "long prompt": (lambda f: set_key(f / PROMPTS, "prompts", {"query": "a" * 2_000_000}), "shorten prompts"),
    "escaped": (lambda f: set_key(f / PROMPTS, "prompts", {"query": "\x01" * 200_000}), "shorten prompts"),
    "long name": (lambda f: set_key(f / PROMPTS, "similarity_fn_name", "a" * 2_000_000), "similarity_fn_name"),
    "scale": (lambda f: set_key(f / "config.json", "query_pre_attn_scalar", 1e-300), "query_pre_attn_scalar"),
    "base": (lambda f: set_key(f / "config.json", "rope_theta", 1e-300), "nothing was written"),
    "large table": (lambda f: scale_weights(f, "embed_tokens.weight", 2.0**126), "nothing was written"),
    "norm": (lambda f: scale_weights(f, "norm.weight", 2.0**127), "nothing was written|NaN"),
    "weights": (lambda f: scale_weights(f, "layers.0.mlp.gate_proj.weight", 2.0**126), "nothing was written"),
}


@pytest.mark.parametrize("scheme", ["float32", "int8", "int4"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_would_not_work_is_not_written(folder: Path, damage: str, scheme: Any) -> None:
    change, reason = DAMAGES[damage]
    output = folder.parent / "model.safetensors"
    output.write_text("mine")
    change(folder)
    with pytest.raises(EmbgemmaError, match=reason) as caught:
        convert(folder, output, scheme, calibrated=False, force=True)
    assert len(str(caught.value)) < 400 + len(str(folder))
    assert str(folder.parent) in str(caught.value)
    assert output.read_text() == "mine"
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint", "model.safetensors"}


def test_a_file_that_its_reader_refuses_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_key(folder / PROMPTS, "prompts", {"query": "a\0"})
    monkeypatch.setattr("embgemma.export.checkpoint.checkpoint.check_prompts", lambda *_: None)
    output = folder.parent / "model.safetensors"
    with pytest.raises(EmbgemmaError, match=f"^{output}: nothing was written.*the file: the prompt 'query' has a zero"):
        convert(folder, output, calibrated=False)
    assert not output.exists()


@pytest.mark.parametrize("length", [0.9, 0.0, np.nan])
def test_a_file_without_unit_vectors_is_not_written(
    tmp_path: Path, length: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def encode(self, _ids: Any, _offsets: Any, dim: int, _normalize: bool) -> Any:
            return np.full((1, dim), length * dim**-0.5)

    monkeypatch.setattr("embgemma.export.check.create_backend", lambda *_, **__: Wrong())
    with pytest.raises(EmbgemmaError, match=r"nothing was written.*length"):
        write_synthetic_model(tmp_path / "m", tiny.CONFIG, "int8")
    assert not list(tmp_path.iterdir())


def test_the_command_says_why_in_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale_weights(folder, "embed_tokens.weight", 2.0**126)
    output = folder.parent / "model.safetensors"
    assert main(["convert", str(folder), "-o", str(output), "--scheme", "float32"]) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "embedding.weight" in line
    assert "too large" in line
    with pytest.raises(CheckpointError):
        convert(folder, output, "float32")
