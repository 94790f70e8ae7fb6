"""Bad calls of the ONNX export and bad ONNX models: one clear sentence, and no half file."""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.kernels.errors import CheckpointError, EmbgemmaError, InputError, ModelFileError
from embgemma.kernels.model_file import CHECKSUM, metadata_checksum
from embgemma.onnx.onnx_backend import OnnxBackend
from tests import tiny
from tests.export.checkpoint import test_adapter
from tests.processes import PYTHON, run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from embgemma.export.onnx.export import export_onnx  # noqa: E402


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "int8.onnx"
    return export_onnx(tiny_folder, path, "int8", calibrated=False).model


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-o", "model.onnx", "--format", "int3"], "argument --format: invalid choice: 'int3'"),
        (["-o", "model.onnx", "--target", "mobile"], "argument --target: invalid choice: 'mobile'"),
        (["-o", "model.bin"], "the name of the output, model.bin, must end in .onnx"),
        (["-o", "none/model.onnx"], "cannot write none/model.onnx: the folder none does not exist; create it first"),
        (["--bundle", "/dev/null/b"], "cannot write /dev/null/b: /dev/null is no folder; give the name of one"),
        (["-o", "a.onnx", "--bundle", "b"], "argument --bundle: not allowed with argument -o/--output"),
        (["-o", "a.onnx", "--operators-config", "./a.onnx"], "--output and --operators-config both name a.onnx"),
        ([], "one of the arguments -o/--output --bundle is required"),
    ],
)
def test_bad_calls_of_the_command(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["export-onnx", str(tiny_folder), *arguments])
    except SystemExit as exit_of_argparse:
        code = int(str(exit_of_argparse.code))
    assert code == 2
    assert problem in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="every name is Unicode")
@pytest.mark.parametrize("option", ["-o", "--bundle"])
def test_onnx_runtime_takes_no_name_of_bytes(
    tiny_folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    name = tmp_path / os.fsdecode(b"gr\xfc\xdf.onnx")
    assert main(["export-onnx", str(tiny_folder), option, str(name)]) == 2
    assert capsys.readouterr().err.count("rename what is not\n") == 1
    name.symlink_to(model)
    with pytest.raises(InputError, match="opens no path that is not UTF-8"):
        embgemma.load(name)


@pytest.mark.parametrize("missing", ["tokenizer.model", "model.safetensors", "config.json", "2_Dense/config.json"])
def test_an_incomplete_checkpoint_is_refused(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    source = tmp_path / "checkpoint"
    shutil.copytree(tiny_folder, source)
    (source / missing).unlink()
    assert main(["export-onnx", str(source), "-o", str(tmp_path / "model.onnx")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert missing in line
    assert not (tmp_path / "model.onnx").exists()


def test_bad_calls_leave_nothing(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="target"):
        export_onnx(tiny_folder, output, "int8", target="mobile")
    with pytest.raises(InputError, match="format"):
        export_onnx(tiny_folder, output, "int3")
    with pytest.raises(InputError, match="truncate_dim"):
        export_onnx(tiny_folder, output, truncate_dim=1000)
    broken = tiny.write_checkpoint(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        export_onnx(broken, output, calibrated=False)
    assert not output.exists()
    output.write_text("mine")
    assert main(["export-onnx", str(tiny_folder), "-o", str(output), "--no-calibration"]) == 2
    assert "--force" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "model.onnx"]


@pytest.mark.parametrize(("output", "named"), [("-o=model.onnx", "model.onnx"), ("--bundle=b", "b/onnx/model.onnx")])
def test_a_full_disk_leaves_nothing(tiny_folder: Path, tmp_path: Path, output: str, named: str) -> None:
    limit = 200_000  # bytes of a file, instead of a full disk
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "from embgemma.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ("export-onnx", tiny_folder, output, "--format", "float32")
    result = run(PYTHON, "-c", code, *arguments, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"embgemma: {named}: File too large"
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_wrong_graph_is_not_written(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embgemma.export.onnx.verify.BOUNDS", {"float32": 1.1})
    monkeypatch.setattr("embgemma.export.onnx.verify.PLAIN_BOUNDS", {"float32": 1.1})
    with pytest.raises(EmbgemmaError, match="does not compute"):
        export_onnx(tiny_folder, tmp_path / "model.onnx", "float32")
    assert not list(tmp_path.iterdir())


def test_foreign_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    foreign = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", [value], [value])
    path = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(foreign), path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("no model\n" * 100)
    problems = {
        "other": "embgemma did not make this ONNX model",
        "folder": "this is a folder",
        "empty": "this is not an ONNX model, or it is cut",
        "text": "this is not an ONNX model, or it is cut",
        "none": "there is no such file",
    }
    for name, problem in problems.items():
        path = tmp_path / f"{name}.onnx"
        for arguments in (["info", str(path)], ["embed", str(path), "the"]):
            assert main(arguments) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"embgemma: {path}: {problem}")


def change_metadata(model: Path, changed: Path, key: str, value: str) -> Path:
    """Writes the model with another value of a key of its metadata, whose checksum is then right again."""
    stored = onnx.load(model)
    metadata = {entry.key: entry.value for entry in stored.metadata_props} | {key: value}
    metadata[CHECKSUM] = metadata_checksum(metadata)
    for entry in stored.metadata_props:
        entry.value = metadata[entry.key]
    onnx.save(stored, changed)
    return changed


def test_a_flipped_byte_is_refused_or_harmless(model: Path, tmp_path: Path) -> None:
    data = bytearray(model.read_bytes())
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.onnx"
    refused = 0
    for position in rng.integers(0, 40_000, 60):  # metadata and operations
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            embgemma.load(path).close()
        except ModelFileError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("version", "remedy"), [("6", "export it again with `embgemma export-onnx`"), ("8", "update embgemma")]
)
def test_other_versions_are_refused(model: Path, tmp_path: Path, version: str, remedy: str) -> None:
    path = change_metadata(model, tmp_path / "other.onnx", "format_version", version)
    with pytest.raises(ModelFileError, match=rf"format version '{version}', this release reads '7'; {remedy}"):
        embgemma.load(path)


def test_onnx_models_have_a_version_of_their_own(
    model: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnx.onnx_backend", "export.onnx.export"):
        monkeypatch.setattr(f"embgemma.{module}.ONNX_VERSION", "9")
    embgemma.load(export_onnx(tiny_folder, tmp_path / "new.onnx", "int8", calibrated=False).model).close()
    with pytest.raises(ModelFileError, match=r"format version '7', this release reads '9'; export it again"):
        embgemma.load(model)


def test_damaged_models_are_refused(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    for size in itertools.chain(range(0, 200, 7), (len(data) // 2, len(data) - 1)):
        path = tmp_path / "cut.onnx"
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match=r"cut\.onnx"):
            embgemma.load(path)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_a_text_without_a_vector_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    opened = embgemma.load(model)
    vectors = np.ones((3, opened.get_embedding_dimension()), np.float32)
    vectors[2, :] = wrong
    monkeypatch.setattr(OnnxBackend, "run", lambda _self, texts: vectors[: len(texts)])
    assert opened.encode(["a", "b"]).shape[0] == 2
    with pytest.raises(ModelFileError, match="text 2 has no vector"):
        opened.encode(["a", "b", "c"])


def bomb() -> str:
    """A few megabytes that inflate to 2 GiB, as the metadata holds a tokenizer."""
    deflate, zeros = zlib.compressobj(9), b"\0" * (1 << 20)
    return base64.b64encode(b"".join([*(deflate.compress(zeros) for _ in range(2048)), deflate.flush()])).decode()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("prompts", "[" * 100_000, "nested too deeply"),
        ("config", "[" * 100_000, "nested too deeply"),
        ("prompts", '{"query": "a\\u0000b"}', "zero"),
        ("tokenizer_model", "bomb", "lacks the tokenizer"),
        ("tokenizer_model", "AAAA", "lacks the tokenizer"),
        ("tokenizer_model", "\x1b[2J", "lacks the tokenizer"),
    ],
)
def test_hostile_metadata_is_refused(model: Path, tmp_path: Path, key: str, value: str, reason: str) -> None:
    path = change_metadata(model, tmp_path / "hostile.onnx", key, bomb() if value == "bomb" else value)
    with pytest.raises(ModelFileError, match=reason) as caught:
        embgemma.load(path)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "weights"])
def test_weights_in_another_file_are_refused(model: Path, tmp_path: Path, location: str) -> None:
    path = tmp_path / "outside.onnx"
    for large in (True, False):
        stored = onnx.load(model)
        sizes = [len(tensor.raw_data) > 4096 for tensor in stored.graph.initializer]
        onnx.external_data_helper.set_external_data(stored.graph.initializer[sizes.index(large)], location)
        path.write_bytes(stored.SerializeToString())
        with pytest.raises(ModelFileError, match="another file"):
            embgemma.load(path)


@pytest.mark.parametrize(
    "inner", ["read_onnx_file", "describe_onnx_model", "OnnxBackend", "check_metadata", "_inflated"]
)
@pytest.mark.parametrize("error", [OverflowError, RecursionError, MemoryError, KeyError, StopIteration])
def test_whatever_is_thrown_inside_is_a_model_file_error(
    model: Path, inner: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def throw(*_: object, **__: object) -> None:
        raise error("thrown")

    monkeypatch.setattr(f"embgemma.onnx.onnx_backend.{inner}", throw)
    with pytest.raises(ModelFileError):
        embgemma.load(model)


@pytest.mark.parametrize("option", ["--bundle", "--operators-config"])
def test_nothing_replaces_a_base_that_only_the_adapter_names(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    base = tiny.write_checkpoint(bundle / "base", test_adapter.CONFIG)
    (bundle / "manifest.json").touch()
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    adapter = test_adapter.write_adapter(tmp_path / "adapter", base)
    places = {
        "--bundle": (option, bundle),
        "--operators-config": (option, base / "config.json", "-o", tmp_path / "model.onnx"),
    }
    code = main(["export-onnx", str(adapter), *map(str, places[option]), "--no-calibration", "--force"])
    assert code == 2
    assert "is read from there; give the output another name" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "bundle"]
