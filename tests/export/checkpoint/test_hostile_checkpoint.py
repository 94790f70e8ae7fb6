"""A checkpoint that is no files, leaves its folder, or holds what no parser expects is refused for one short reason."""

from __future__ import annotations

import json
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest

from embgemma.export.checkpoint.checkpoint import read_checkpoint
from embgemma.export.quantise.calibration import read_calibration
from embgemma.kernels.errors import CheckpointError, InputError
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embgemma.export.checkpoint.checkpoint import Checkpoint

FILES = ["config.json", "model.safetensors", "modules.json", "config_sentence_transformers.json", "tokenizer.model"]
FILES += ["sentence_bert_config.json", "tokenizer_config.json", "1_Pooling/config.json", "2_Dense/config.json"]
FILES += ["2_Dense/model.safetensors", "tokenizer.json", "added_tokens.json", "special_tokens_map.json"]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "checkpoint")


def refused(folder: Path, reason: str = ".") -> None:
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_checkpoint(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert len(message) < 360 + len(str(folder))
    assert message.isprintable()


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the name of a socket is short
        server.bind(path.name)


NO_FILES: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": bind,
    "broken link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused(folder: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / name).unlink(missing_ok=True)
    NO_FILES[kind](folder / name)
    refused(folder, name)


HOSTILE = [b"", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b'{"a":1,"a":1}', b'"\\ud800"', b"1e999"]
HOSTILE += [
    b'{"\x1b[2J": 1}',
    json.dumps({"x" * 10**6: "y" * 10**6}).encode(),
    b'["' + b"\\u202e" * 10_000 + b'"]',
    b"[1]",
]


@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json", "2_Dense/config.json"])
@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_json_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    refused(folder, name)


KEYS = ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"]
KEYS += ["head_dim", "vocab_size", "rms_norm_eps", "query_pre_attn_scalar", "sliding_window", "rope_theta"]
KEYS += ["rope_local_base_freq", "bos_token_id", "eos_token_id", "max_position_embeddings", "layer_types"]
VALUES = [
    "1000000000",
    "1e400",
    "1" + "0" * 400,
    "9" * 40,
    "-1",
    "0",
    "1e-300",
    "true",
    '"64"',
    "null",
    "[]",
    "{}",
    "0.5",
]
FINE = {("rms_norm_eps", value) for value in ("1000000000", "9" * 40, "1e-300", "0.5")}
FINE |= {("max_position_embeddings", value) for value in ("1000000000", "9" * 40)} | {("layer_types", "null")}
FINE |= {(key, v) for key in ("rope_theta", "rope_local_base_freq") for v in ("1000000000", "9" * 40, "1e-300", "0.5")}
FINE |= {("query_pre_attn_scalar", "0.5")}  # any other model file; what it embeds is looked at when it is written


@pytest.mark.parametrize("key", KEYS)
def test_numbers_out_of_range_are_refused(folder: Path, key: str) -> None:
    raw = json.loads((folder / "config.json").read_text())
    marked = json.dumps({**raw, key: "here"})
    for value in (value for value in VALUES if (key, value) not in FINE):
        (folder / "config.json").write_text(marked.replace('"here"', value))
        refused(folder, "config.json")


def test_layers_without_types_are_counted_before_they_are_listed(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    del raw["layer_types"]
    tiny.write_json(folder / "config.json", {**raw, "num_hidden_layers": 10**9})
    refused(folder, "num_hidden_layers is 1000000000; expected at most 256")


@pytest.mark.parametrize("place", ["../outside", "/outside", "1_Pooling/../../outside", "link", "..", "a\0b", "\ud800"])
def test_modules_stay_in_the_folder(folder: Path, place: str) -> None:
    shutil.copytree(folder / "1_Pooling", folder.parent / "outside")
    (folder / "link").symlink_to(folder.parent / "outside")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = place.replace("/outside", f"{folder.parent}/outside") if place[0] == "/" else place
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder)


def test_files_may_be_links_as_in_the_cache_of_the_hub(folder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for i, path in enumerate([path for path in folder.rglob("*") if path.is_file()]):
        path.rename(blobs / str(i))
        path.symlink_to(blobs / str(i))
    assert read_checkpoint(folder).config == tiny.CONFIG


def test_many_modules_are_refused_at_once(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    tiny.write_json(folder / "modules.json", [{**modules[2], "name": str(i)} for i in range(100_000)])
    refused(folder, "100000 modules")


def test_shards_are_files_beside_the_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    tiny.write_json(index, {"weight_map": {f"t{i}": f"m{i}.safetensors" for i in range(200_000)}})
    refused(folder, r"m0\.safetensors")
    for name in ("../m.safetensors", "/m.safetensors", "..", ".", "", "a\0b", 1, None, ["m"]):
        tiny.write_json(index, {"weight_map": {"norm.weight": name}})
        refused(folder)


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ({"query": "a\0b"}, "zero"),
        ({"a\0b": "query"}, "zero"),
        ({"query": "\ud83d"}, "surrogate"),
        ({str(i): "" for i in range(300)}, "300 prompts"),
        ({"query": 1}, "strings"),
    ],
)
def test_prompts_that_no_model_file_can_hold_are_refused(folder: Path, prompts: dict[str, Any], reason: str) -> None:
    tiny.write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    refused(folder, f"config_sentence_transformers.json: .*{reason}")


def test_pieces_that_are_not_utf_8_are_refused(folder: Path) -> None:
    path = folder / "tokenizer.model"
    path.write_bytes(path.read_bytes().replace(b"<unused0>", b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff"))
    refused(folder)


INNER = ["modules.settings.check_modules", "checkpoint.EncoderConfig", "checkpoint.read_tokenizer"]
INNER += ["checkpoint_tensors.open_safetensors", "checkpoint.check_prompts", "modules.read_json"]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("error", [OverflowError, RecursionError, MemoryError, KeyError, TypeError, PermissionError])
def test_whatever_is_thrown_inside_is_a_checkpoint_error(
    folder: Path, inner: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def throw(*_: object, **__: object) -> None:
        raise error("thrown")

    monkeypatch.setattr(f"embgemma.export.checkpoint.{inner}", throw)
    refused(folder)


@pytest.mark.parametrize("kind", NO_FILES)
def test_calibration_texts_are_a_file(
    tiny_source: Checkpoint, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    NO_FILES[kind](tmp_path / "texts.jsonl")
    with pytest.raises(InputError, match=r"texts\.jsonl"):
        read_calibration(tiny_source, tmp_path / "texts.jsonl")


@pytest.mark.parametrize("line", [b'{"text": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"text": "\\ud800"}', b"\xff"])
def test_calibration_texts_are_text(tiny_source: Checkpoint, tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(line)
    with pytest.raises(InputError, match=r"texts\.jsonl"):
        read_calibration(tiny_source, path)
