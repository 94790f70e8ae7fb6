"""Exported ONNX models compute what the checkpoint does, in ONNX Runtime and by the standard, alone and padded."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

import embgemma
from embgemma.cli.info_command import PARTS
from embgemma.cli.main import main
from embgemma.export.convert import convert
from embgemma.kernels.layout import matrices
from embgemma.kernels.model_file import read_model_file
from embgemma.kernels.reference import ReferenceBackend
from embgemma.onnx.onnx_backend import session_options
from embgemma.onnx.onnx_choices import FORMATS, TARGETS
from embgemma.onnx.onnx_facts import onnx_facts
from embgemma.onnx.onnx_file import read_onnx_file
from tests import tiny

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime")

from embgemma.export.onnx.export import export_onnx  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

Ids = npt.NDArray[np.int32]
Vectors = npt.NDArray[np.float32]
Models = dict[tuple[str, str], "Path"]

# Between a text alone and padded: last bits of float32 sums differ, and now and then an int8 code.
PADDED = {"float32": 0.999999, "int8": 0.9999, "int4": 0.9999}
COSINES = {"float32": 0.99999, "int8": 0.999, "int4": 0.93}  # random weights of a tiny model, not calibrated
# Past the window, and past the length from which sliding layers go by blocks: 128 + 2 * window.
LENGTHS = (1, 2, 9, 64, 137, 300)
CONFIG = replace(tiny.CONFIG, max_tokens=320)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", CONFIG)


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    paths: Models = {}
    for kind, target in itertools.product(FORMATS, TARGETS):
        output = folder.parent / f"{kind}.{target}.onnx"
        paths[kind, target] = export_onnx(folder, output, kind, target=target, calibrated=False).model
    return paths


def test_every_model_has_a_fingerprint_of_its_own(folder: Path, models: Models) -> None:
    files = [convert(folder, folder.parent / "fingerprint.safetensors", "int8", calibrated=False), *models.values()]
    found = {embgemma.load(path).fingerprint() for path in files}
    assert len(found) == len(files)
    assert {name.partition("-")[2] for name in found} == {embgemma.load(files[0]).fingerprint().partition("-")[2]}
    again = export_onnx(folder, folder.parent / "again.onnx", "int8", calibrated=False).model
    assert embgemma.load(again).fingerprint() == embgemma.load(models["int8", "onnxruntime"]).fingerprint()


@pytest.fixture(scope="module")
def texts() -> list[Ids]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, CONFIG.vocab, length).astype(np.int32) for length in LENGTHS]


@pytest.fixture(scope="module")
def float32(folder: Path) -> Path:
    return convert(folder, folder.parent / "float32.safetensors", "float32")


@pytest.fixture(scope="module")
def expected(float32: Path, texts: list[Ids]) -> Vectors:
    model_file = read_model_file(float32)
    reference = ReferenceBackend(model_file.config, model_file.tensors)
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return reference.encode(np.concatenate(texts), offsets, CONFIG.hidden, True)


def padded(texts: list[Ids], before: int = 0, after: int = 0) -> dict[str, npt.NDArray[np.int64]]:
    longest = max(map(len, texts)) + before + after
    ids = np.full((len(texts), longest), 7, np.int64)  # padding must not matter
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, before : before + len(text)] = text
        mask[row, before : before + len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", FORMATS)
def test_vectors_are_those_of_the_reference(
    models: Models, texts: list[Ids], expected: Vectors, kind: str, target: str
) -> None:
    session = onnxruntime.InferenceSession(models[kind, target], session_options())
    alone = np.concatenate([session.run(None, padded([text]))[0] for text in texts])
    assert np.sum(alone * expected, axis=1).min() > COSINES[kind]
    for before, after in ((0, 0), (0, 3), (2, 0)):
        together = session.run(None, padded(texts, before, after))[0]
        assert np.sum(alone * together, axis=1).min() > PADDED[kind]


@pytest.mark.parametrize("kind", FORMATS)
def test_portable_models_are_standard(models: Models, texts: list[Ids], expected: Vectors, kind: str) -> None:
    model = onnx.load(models[kind, "portable"])
    onnx.checker.check_model(model, full_check=True)
    assert [entry.domain for entry in model.opset_import] == [""]
    evaluator = onnx.reference.ReferenceEvaluator(model)
    for i in (2, 3, 4):
        vector = evaluator.run(["sentence_embedding"], padded([texts[i]], 0, 1))[0][0]
        assert vector @ expected[i] > COSINES[kind]


def test_truncated_models_give_the_first_numbers(folder: Path, float32: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    export_onnx(folder, path, "float32", truncate_dim=64, last_hidden_state=True)
    small, full = embgemma.load(path), embgemma.load(float32)
    assert small.get_embedding_dimension() == 64
    given = small.encode(["the of and", "to in"])
    assert given.shape == (2, 64)
    np.testing.assert_allclose(
        given, full.encode(["the of and", "to in"], truncate_dim=64, normalize_embeddings=True), atol=1e-5
    )
    with pytest.warns(UserWarning, match="truncate_dim=65 is above the 64"):
        assert small.encode("the", truncate_dim=65).shape == (64,)
    session = onnxruntime.InferenceSession(path)
    hidden = session.run(["last_hidden_state"], padded([np.array([2, 9, 1], np.int32)], 0, 2))[0]
    assert hidden.shape == (1, 5, CONFIG.hidden)


def test_a_model_is_used_like_any_other(models: Models, float32: Path) -> None:
    full = embgemma.load(float32)
    with embgemma.load(models["int8", "onnxruntime"], threads=1) as model:
        assert (model.backend, model.threads, model.prompts) == ("onnx", 1, tiny.PROMPTS)
        given, wanted = (each.encode_query(["the of and", "é 你好"]) for each in (model, full))
        assert np.sum(given * wanted, axis=1).min() > COSINES["int8"]
        assert model.token_ids("the of") == full.token_ids("the of")
    with pytest.raises(embgemma.BackendError, match="onnx"):
        embgemma.load(models["int8", "onnxruntime"], backend="native")


@pytest.mark.parametrize(("kind", "target"), [("int8", "onnxruntime"), ("int4", "portable")])
def test_info(models: Models, capsys: pytest.CaptureFixture[str], kind: str, target: str) -> None:
    path = models[kind, target]
    assert main(["info", str(path), "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [line.split() for line in lines]
    assert lines[0] == f"file        {path} ({path.stat().st_size / 1e6:.1f} MB)"
    assert words[1][-4:] == ["format", f"{kind},", "target", target]
    assert ["inputs", "input_ids", "int64", "(batch_size,", "sequence_length)"] in words
    assert ["outputs", "sentence_embedding", "float32", "(batch_size,", str(CONFIG.hidden) + ")"] in words
    assert ["embeddings", str(CONFIG.hidden), "dimensions", "or", "fewer,", "compared", "by", "cosine"] in words
    needs = words.index(next(line for line in words if line[:1] == ["needs"]))
    assert words[needs][1:3] == ["onnxruntime", "1.18" if target == "onnxruntime" else "1.19"]
    sets = ["operator", "sets", "ai.onnx", "21,", "com.microsoft", "1"]
    assert words[needs + 1] == (sets if target == "onnxruntime" else ["operator", "sets", "ai.onnx", "21"])
    assert any(line.startswith("prompts     query ") and json.dumps(tiny.PROMPTS["query"]) in line for line in lines)
    assert words[-1] == ["in", "use", "onnx,", "onnxruntime", f"{onnxruntime.__version__},", "threads", "1"]


def test_sizes_of_parts_make_up_the_file(models: Models) -> None:
    for path in models.values():
        tensors = onnx_facts(path, read_onnx_file(path, with_tokenizer=True)).tensors
        graph = onnx.load(path).graph
        assert tensors.keys() == {tensor.name for tensor in graph.initializer} | {"tokenizer"}
        assert 0.7 * path.stat().st_size < sum(tensors.values()) < path.stat().st_size


def test_info_knows_which_part_each_matrix_belongs_to(models: Models) -> None:
    names = {spec.name for spec in matrices(CONFIG)}
    assert {name.split(".")[-1] for name in names} < set(itertools.chain(*PARTS.values()))
    for path in models.values():
        assert names < onnx_facts(path, read_onnx_file(path, with_tokenizer=True)).tensors.keys()


def test_weights_stay_in_the_file(models: Models) -> None:
    path = models["int8", "onnxruntime"]
    data = path.read_bytes()
    whole = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    outside = 0
    for tensor in onnx.load_model_from_string(read_onnx_file(path).model).graph.initializer:
        if tensor.external_data:
            place = {entry.key: entry.value for entry in tensor.external_data}
            offset, length = int(place["offset"]), int(place["length"])
            assert (place["location"], offset % 64) == (path.name, 0)
            assert data[offset : offset + length] == whole[tensor.name].raw_data
            outside += length
    assert outside > 0.9 * len(data)


def test_balanced_is_int4_and_its_operators_are_listed(
    models: Models, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, config = tmp_path / "model.onnx", tmp_path / "required_operators.config"
    arguments = ["export-onnx", str(folder), "-o", str(model), "--format", "balanced", "--no-calibration"]
    assert main([*arguments, "--operators-config", str(config)]) == 0
    lines = [line.split(";") for line in config.read_text().splitlines()]
    listed = {(domain, kind) for domain, _, kinds in lines for kind in kinds.split(",")}
    assert listed == {(node.domain or "ai.onnx", node.op_type) for node in onnx.load(model).graph.node}
    assert [(domain, version) for domain, version, _ in lines] == [("ai.onnx", "21"), ("com.microsoft", "1")]
    graphs = [onnx.load(path).graph for path in (model, models["int4", "onnxruntime"])]
    assert graphs[0].node == graphs[1].node
    given, wanted = ({tensor.name: tensor.raw_data for tensor in graph.initializer} for graph in graphs)
    assert given == wanted
    assert main(["info", str(model)]) == 0
    assert "format balanced, target onnxruntime" in capsys.readouterr().out
