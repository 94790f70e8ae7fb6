"""A converted checkpoint computes what the checkpoint does, and appears as a whole file or not at all."""

from __future__ import annotations

import functools
import itertools
import json
import resource
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
import safetensors

from embgemma.export.checkpoint import folds
from embgemma.export.convert import convert
from embgemma.export.quantise.calibration import read_calibration
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from embgemma.kernels import create_backend
from embgemma.kernels.embedding_rows import EmbeddingRows
from embgemma.kernels.errors import CheckpointError, InputError
from embgemma.kernels.layout import unpack_matrix
from embgemma.kernels.model_file import SCHEMES, ModelFile, read_model_file
from embgemma.kernels.rotation import rotate_blocks
from embgemma.notices import Progress
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embgemma.export.checkpoint.checkpoint import Checkpoint
    from embgemma.kernels.model_file import Scheme

F64 = npt.NDArray[np.float64]
CONFIG = tiny.CONFIG

# ---- an independent float64 model, written after transformers' Gemma3TextModel, without folds or fusion ----------


def rms_norm(x: F64, w: F64) -> F64:
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG.rms_norm_eps) * (1 + w))


def rope(x: F64, theta: float) -> F64:
    half = CONFIG.head_dim // 2
    angles = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(np.tile(angles, 2)), np.sin(np.tile(angles, 2))
    return np.asarray(x * cos + np.concatenate([-x[:, half:], x[:, :half]], axis=1) * sin)


def gelu(x: F64) -> F64:
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def attention(x: F64, w: dict[str, F64], layer: int) -> F64:
    theta = CONFIG.rope_theta_full if CONFIG.is_full(layer) else CONFIG.rope_theta_sliding
    positions = np.arange(len(x))
    seen = np.abs(positions[:, None] - positions) <= (len(x) if CONFIG.is_full(layer) else CONFIG.window)
    k = rope(rms_norm(x @ w["self_attn.k_proj"].T, w["self_attn.k_norm"]), theta)
    v = x @ w["self_attn.v_proj"].T
    heads = []
    for q in np.split(x @ w["self_attn.q_proj"].T, CONFIG.heads, axis=1):
        scores = rope(rms_norm(q, w["self_attn.q_norm"]), theta) @ k.T * CONFIG.head_dim**-0.5
        powers = np.where(seen, np.exp(scores - scores.max()), 0)
        heads.append(powers / powers.sum(1, keepdims=True) @ v)
    return np.asarray(np.concatenate(heads, axis=1) @ w["self_attn.o_proj"].T)


@functools.cache
def plain_embedding(ids: tuple[int, ...]) -> F64:
    tensors = {name: tensor.astype(np.float64) for name, tensor in tiny.encoder_tensors(CONFIG).items()}
    x = tensors["embed_tokens.weight"][[*ids]] * CONFIG.hidden**0.5
    for i in range(CONFIG.layers):
        prefix = f"layers.{i}."
        w = {
            name.removeprefix(prefix).removesuffix(".weight"): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        x = x + rms_norm(attention(rms_norm(x, w["input_layernorm"]), w, i), w["post_attention_layernorm"])
        y = rms_norm(x, w["pre_feedforward_layernorm"])
        y = (gelu(y @ w["mlp.gate_proj"].T) * (y @ w["mlp.up_proj"].T)) @ w["mlp.down_proj"].T
        x = x + rms_norm(y, w["post_feedforward_layernorm"])
    pooled = rms_norm(x, tensors["norm.weight"]).mean(axis=0)
    for dense in tiny.dense_tensors(CONFIG):
        pooled = dense.astype(np.float64) @ pooled
    return np.asarray(pooled / np.linalg.norm(pooled))


def encode(model: ModelFile, ids: tuple[int, ...]) -> npt.NDArray[np.float32]:
    backend = create_backend(model, backend="reference")
    offsets = np.array([0, len(ids)], np.int64)
    return np.asarray(backend.encode(np.array(ids, np.int32), offsets, CONFIG.hidden, True)[0])


IDS = (2, *(37 * i % CONFIG.vocab for i in range(1, 31)), 1)  # longer than the window on both sides


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_float32_file_computes_what_the_checkpoint_does(tmp_path: Path, dtype: tiny.Dtype) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint", dtype=dtype, shards=2, prefix="model.")
    model = read_model_file(convert(folder, tmp_path / "model.safetensors", "float32"))
    # 1e-6: the stored weights are exact, but for folds rounded to float32 (relative error 6e-8 each)
    np.testing.assert_allclose(encode(model, IDS), plain_embedding(IDS), rtol=0, atol=1e-6)


def test_a_query_scale_that_is_not_the_head_size_is_folded_in(
    tmp_path: Path, rounded: Callable[[Scheme], Path]
) -> None:
    expected = read_model_file(rounded("int8")).tensors
    scaled = tiny.write_checkpoint(tmp_path / "checkpoint")
    config = tiny.json_files(CONFIG)["config.json"]
    tiny.write_json(scaled / "config.json", {**config, "query_pre_attn_scalar": 4 * CONFIG.head_dim})
    found = read_model_file(convert(scaled, tmp_path / "b.safetensors", "int8", calibrated=False)).tensors
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor / 2 if name.endswith("q_norm") else tensor)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_writes_a_whole_model_file(rounded: Callable[[Scheme], Path], scheme: Scheme) -> None:
    path = rounded(scheme)
    model = read_model_file(path)
    assert (model.config, model.scheme, model.prompts) == (CONFIG, scheme, tiny.PROMPTS)
    if scheme == "int4":
        assert model.tokenizer_model is None
    else:
        assert model.tokenizer_model is not None
        assert bytes(model.tokenizer_model) == tiny.tokenizer_model()
    assert model.tokenizer_table is not None
    np.testing.assert_array_equal(model.tokenizer_table, build_tokenizer_table(tiny.tokenizer_model()))
    with safetensors.safe_open(path, "numpy") as published:
        tokenizers = {"tokenizer.table"} if scheme == "int4" else {"tokenizer.table", "tokenizer.model"}
        assert set(published.keys()) == {*model.tensors, *tokenizers}
    cosine = encode(model, IDS) @ plain_embedding(IDS)
    assert cosine > {"float32": 0.999999, "int8": 0.999, "balanced": 0.9, "mixed": 0.9, "int4": 0.9}[scheme]
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]


def write_texts(path: Path, count: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    words = ["the", "of", "and", "to", "in", "is", "that", "for", "абв", "你好", "x = 3", "?"]
    lines = [{"text": " ".join(random.choice(words, 12)), "prompt": "query"} for _ in range(count)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["int8", "mixed", "int4"])
def test_calibration_brings_other_texts_nearer(
    tmp_path: Path, tiny_folder: Path, tiny_source: Checkpoint, rounded: Callable[[Scheme], Path], scheme: Scheme
) -> None:
    texts = write_texts(tmp_path / "texts.jsonl", 60, seed=0)
    plain = read_model_file(rounded(scheme))
    model = read_model_file(convert(tiny_folder, tmp_path / "model.safetensors", scheme, calibration=texts))
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in model.tensors.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in plain.tensors.items()
    }
    others = read_calibration(tiny_source, write_texts(tmp_path / "others.jsonl", 10, seed=1))

    def distance(of: ModelFile) -> float:
        ids = [tuple(others.ids[start:stop].tolist()) for start, stop in itertools.pairwise(others.offsets)]
        return float(np.mean([1 - encode(of, text) @ plain_embedding(text) for text in ids]))

    assert distance(model) < 0.75 * distance(plain)


def test_the_same_texts_give_the_same_bytes(tmp_path: Path, tiny_folder: Path) -> None:
    texts = write_texts(tmp_path / "texts.jsonl", 8, seed=0)
    first = convert(tiny_folder, tmp_path / "a.safetensors", "mixed", calibrated=True, calibration=texts)
    second = convert(tiny_folder, tmp_path / "b.safetensors", "mixed", calibrated=True, calibration=texts)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("scheme", "calibrated"), [("float32", True), ("mixed", False)])
def test_the_same_checkpoint_gives_the_same_bytes(
    tmp_path: Path, tiny_folder: Path, rounded: Callable[[Scheme], Path], scheme: Scheme, *, calibrated: bool
) -> None:
    again = convert(tiny_folder, tmp_path / "model.safetensors", scheme, calibrated=calibrated)  # float32 never is
    assert again.read_bytes() == rounded(scheme).read_bytes()


def test_wrong_calibration_texts_leave_nothing_behind(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("no JSON", encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        convert(
            tiny_folder, tmp_path / "model.safetensors", "int8", calibrated=True, calibration=tmp_path / "texts.jsonl"
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["texts.jsonl"]


def test_schemes_quantise_what_they_say(rounded: Callable[[Scheme], Path]) -> None:
    model = read_model_file(rounded("mixed"))
    dtypes = {name: tensor.dtype for name, tensor in model.tensors.items() if name.endswith(".weight")}
    int8 = {name for name, dtype in dtypes.items() if dtype == np.int8}
    assert int8 == {
        "head.weight",
        *(f"layers.{i}.{kind}.weight" for i in (0, CONFIG.layers - 1) for kind in ("qkv", "o", "gate_up", "down")),
    }
    assert {dtypes[name] for name in dtypes.keys() - int8} == {np.dtype(np.uint8)}


def test_quantised_weights_are_within_a_step_of_the_checkpoint(rounded: Callable[[Scheme], Path]) -> None:
    model = read_model_file(rounded("int8"))
    tensors = tiny.encoder_tensors(CONFIG)
    down = unpack_matrix(model.tensors, "layers.1.down") * model.tensors["layers.1.down.scale"][:, None]
    step = np.abs(model.tensors["layers.1.down.scale"])[:, None]
    assert np.all(np.abs(down - rotate_blocks(tensors["layers.1.mlp.down_proj.weight"])) <= step)
    rows = EmbeddingRows(model.tensors, CONFIG.hidden).values(np.arange(CONFIG.vocab))
    expected = tensors["embed_tokens.weight"] * np.float32(CONFIG.embedding_multiplier)
    assert np.all(np.abs(rotate_blocks(rows - expected)) <= np.abs(model.tensors["embedding.scale"])[:, None])


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path, tiny_folder: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("precious")
    with pytest.raises(InputError, match="--force"):
        convert(tiny_folder, path, "int4", calibrated=False)
    assert path.read_text() == "precious"
    convert(tiny_folder, path, "int4", calibrated=False, force=True)
    assert read_model_file(path).scheme == "int4"


def test_an_impossible_destination_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        convert(tiny_folder, tmp_path / "none" / "model.safetensors", calibrated=False)
    with pytest.raises(InputError, match="is a folder"):
        convert(tiny_folder, tmp_path, force=True, calibrated=False)
    unknown: Any = "int3"
    with pytest.raises(InputError, match="unknown scheme 'int3'"):
        convert(tiny_folder, tmp_path / "model.safetensors", unknown, calibrated=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_a_failure_halfway_leaves_nothing_behind(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    path = tmp_path / "model.safetensors"
    path.write_text("precious")
    monkeypatch.setattr(folds, "folded_norm", fail)
    with pytest.raises(error):
        convert(tiny_folder, path, "int8", force=True, calibrated=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "2_Dense/model.safetensors", "tokenizer.model"])
@pytest.mark.parametrize("linked", [None, "symlink_to", "hardlink_to"])
def test_no_output_replaces_an_input(tmp_path: Path, tiny_folder: Path, name: str, linked: str | None) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "checkpoint")
    before, output = (folder / name).read_bytes(), folder / name
    if linked is not None:
        output = tmp_path / "out"
        getattr(output, linked)(folder / name)
    with pytest.raises(InputError, match=f"{name} is read from there"):
        convert(folder, output, "int8", calibrated=False, force=True)
    assert (folder / name).read_bytes() == before
    for _ in range(2):  # beside the weights is room for another file, which may be replaced
        convert(folder, folder / "model.int8.safetensors", "int8", calibrated=False, force=True)


@pytest.mark.parametrize("options", [{"scheme": "float32"}, {"calibrated": False}])
def test_calibration_texts_without_use_are_refused(tmp_path: Path, tiny_folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"calibration='texts'.*; leave it out"):
        convert(tiny_folder, tmp_path / "x", calibration="texts", **options)


@pytest.mark.parametrize("name", ["x.onnx", "x.ONNX"])
def test_a_name_that_says_onnx_is_refused(tmp_path: Path, tiny_folder: Path, name: str) -> None:
    with pytest.raises(InputError, match="end its name in"):
        convert(tiny_folder, tmp_path / name, calibrated=False)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, tiny_folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # no file may grow beyond 100 kB
    try:
        with pytest.raises(OSError, match="File too large"):
            convert(tiny_folder, tmp_path / "model.safetensors", "int8", calibrated=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_not_finite_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tiny.write_checkpoint(tmp_path / "checkpoint")
    tensors = tiny.encoder_tensors(CONFIG)
    tensors["norm.weight"][7] = np.inf
    tiny.write_tensors(broken / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"norm\.weight"):
        convert(broken, tmp_path / "model.safetensors", calibrated=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


class Stages(Progress):
    """Keeps what progress is told: how much of how much of each stage was done."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.stages: dict[str, list[float]] = {}

    def begin(self, doing: str, total: float = 0, unit: str = "") -> None:
        super().begin(doing, total, unit)
        self.stages[doing] = [0, total]

    def advance(self, amount: float = 1) -> None:
        super().advance(amount)
        list(self.stages.values())[-1][0] += amount


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("calibrated", [True, False])
def test_every_stage_is_told_to_its_end(tmp_path: Path, tiny_folder: Path, scheme: Scheme, calibrated: bool) -> None:
    progress = Stages()
    calibrated = calibrated and scheme != "float32"
    texts = write_texts(tmp_path / "texts.jsonl", 40, seed=0) if calibrated else None  # those that ship take long
    convert(
        tiny_folder, tmp_path / "a.safetensors", scheme, progress=progress, calibrated=calibrated, calibration=texts
    )
    names = [name for name in progress.stages if name.startswith("calibrating")]
    assert len(names) == (0 if not calibrated else 1 if scheme == "int8" else 2)
    for done, total in progress.stages.values():
        assert total <= done + 1e-6 < total + 2  # the head comes with the layers


def test_nothing_is_said_unless_asked(tmp_path: Path, tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(tiny_folder, tmp_path / "a.safetensors", "int8", calibrated=False)
    assert capfd.readouterr() == ("", "")


def test_a_disk_without_room_is_refused_before_the_work(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**9, free=1000))
    monkeypatch.setattr("embgemma.export.convert.build_tokenizer_table", Mock(side_effect=AssertionError))
    with pytest.raises(InputError, match=r"a\.safetensors: it takes .* kB, and 1\.0 kB are free there; make room"):
        convert(tiny_folder, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
