"""A folder or a name given instead of a model file: the model in it is opened, or the command to make one is said."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.find import is_hub_name, opening
from embgemma.kernels.errors import ModelFileError
from tests.kernels.test_damaged_files import BEGINNINGS

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_file_is_itself(model_path: Path, tmp_path: Path) -> None:
    for path in (model_path, tmp_path / "none.safetensors"):
        with opening(path) as found:
            assert found == path


@pytest.mark.parametrize("name", ["onnx/model.onnx", "model.onnx"])
def test_a_bundle_is_its_model(tmp_path: Path, name: str) -> None:
    for file in ("manifest.json", "config.json", name):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with opening(tmp_path) as found:
        assert found == tmp_path / name


@pytest.mark.parametrize("name", ["fine-tune", "two words", "it's"])
@pytest.mark.parametrize("file", ["config.json", "modules.json", "adapter_config.json"])
def test_a_checkpoint_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, name: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / file).write_text("{}")
    with pytest.raises(ModelFileError, match="convert it once") as raised:
        embgemma.load(folder)
    command = str(raised.value).partition("once: ")[2].partition(", then")[0]
    assert shlex.split(command) == ["embgemma", "convert", str(folder), "-o", f"{name}.int8.safetensors"]
    assert main(["info", str(folder)]) == 1
    assert command in capsys.readouterr().err


def test_another_folder_is_refused(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"such as small\.safetensors"):
        embgemma.load(model_path.parent)
    with pytest.raises(ModelFileError, match="holds no model"):
        embgemma.load(tmp_path)


@pytest.mark.parametrize("name", ["embeddinggemma-300m", "all-MiniLM-L6-v2", "model.bin"])
def test_a_name_without_its_owner(name: str) -> None:
    with pytest.raises(ModelFileError, match="no such file; a name on the Hugging Face hub begins with its owner"):
        embgemma.load(name)


def test_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="this is an address, and nothing is downloaded here"):
        embgemma.load("https://example.com/some-model")
    with pytest.raises(ModelFileError, match="such file"):
        embgemma.load(tmp_path / "google/some-model")


@pytest.mark.parametrize(
    "place",
    ["https://huggingface.co/google/some-model", "http://huggingface.co/google/some-model/", "hf.co/google/some-model"],
)
@pytest.mark.parametrize("end", ["", "/tree/main", "/blob/main/model.safetensors"])
def test_an_address_of_the_hub_is_refused_with_the_name(place: str, end: str) -> None:
    with pytest.raises(ModelFileError, match=r"this is an address; give the name alone, google/some-model"):
        embgemma.load(place + end)


@pytest.mark.parametrize(
    ("name", "may_be"),
    [
        ("google/embeddinggemma-300m", True),
        ("a/b", True),
        ("models/m.safetensors", False),
        ("models/m.onnx", False),
        ("./a/b", False),
        ("/a/b", False),
        ("a/b/c", False),
        ("a", False),
        ("a/b c", False),
        ("a/..", False),
        ("a/b--c", False),
        ("ä/b", False),
        ("a/b\n", False),
        ("a/" + "b" * 95, False),
    ],
)
def test_what_may_be_a_name_of_the_hub(name: str, may_be: bool) -> None:
    assert is_hub_name(name) is may_be


@pytest.mark.parametrize("open_model", [embgemma.load, embgemma.SentenceTransformer])
@pytest.mark.parametrize("path", ["x" * 5000, "a/" * 3000, "x" * 300, "~/m.safetensors", "~nobody.at.all/m"])
def test_a_path_that_cannot_be(open_model: Any, path: str) -> None:
    with pytest.raises(ModelFileError, match=r"name too long|~ is expanded by shells alone"):
        open_model(path)


@pytest.mark.parametrize("kind", [kind for kind in BEGINNINGS if kind != "an ONNX model"])
def test_a_file_of_another_kind_is_named_also_as_onnx(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BEGINNINGS[kind].ljust(100, b" "))
    with pytest.raises(ModelFileError, match=re.escape(f"this is {kind}, not an ONNX model")):
        embgemma.load(path)


def test_an_onnx_model_is_named_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x08\n\x12\x08embgemma".ljust(100))
    with pytest.raises(
        ModelFileError, match=r": this is an ONNX model, not a safetensors file; to load it, end its name"
    ):
        embgemma.load(path, backend="reference")
