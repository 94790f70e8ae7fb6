"""Which model a command takes: the first argument, --model, or, where none is named, the one in the box."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main

NOTICE = "no model is named: embgemma-tiny embeds, a small demonstration that comes with the package"


@pytest.fixture
def box(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in the box, and an empty folder to work in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    (tmp_path / "models").mkdir()
    return Path(shutil.copy(model_path, tmp_path / "models/embgemma-tiny.safetensors"))


@pytest.fixture
def embed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `embgemma embed`: (exit code, number of embeddings, standard error)."""

    def run(*arguments: str) -> tuple[int, int, str]:
        code = main(["embed", "--backend", "reference", *arguments])
        captured = capsys.readouterr()
        return code, len([json.loads(line) for line in captured.out.splitlines()]), captured.err

    return run


def test_the_model_in_the_box(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = embgemma.load(box, backend="reference").encode(["a"])
    named = embgemma.load("embgemma-tiny", backend="reference")
    for model in (named, embgemma.load(backend="reference"), embgemma.SentenceTransformer("embgemma-tiny")):
        assert model.path == box
    assert np.array_equal(named.encode(["a"]), expected)
    for arguments in (["info"], ["info", "embgemma-tiny"]):
        assert main([*arguments, "--backend", "reference"]) == 0
        assert str(box) in capsys.readouterr().out


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize(
    ("arguments", "embeddings"),
    [
        (["some text"], 1),
        (["some text", "word"], 2),
        (["two\nlines"], 1),
        (["and/or: which (of the two)?"], 1),
        (["it ends. "], 1),
        (["x " + "y" * 300], 1),
        (["--input", "texts.txt"], 3),
        (["some text", "--prompt", "x: "], 1),
    ],
)
def test_texts_without_a_model(embed: Any, arguments: list[str], embeddings: int) -> None:
    Path("texts.txt").write_text("a\nb\nc\n")
    code, found, error = embed(*arguments)
    assert (code, found) == (0, embeddings)
    assert error.startswith(f"embgemma: {NOTICE}\n")
    assert (NOTICE in embed("-q", *arguments)[2]) == (arguments[0] != "--input")  # if it may not be meant as a text


@pytest.mark.parametrize("model", ["embgemma-tiny", "../models/embgemma-tiny.safetensors", "../two words", "two words"])
def test_a_model_is_the_first_argument_or_an_option(box: Path, embed: Any, model: str) -> None:
    for folder in (Path(".."), Path()):
        shutil.copy(box, folder / "two words")
    assert embed(model, "some text") == embed("some text", "--model", model) == (0, 1, "")
    assert embed("--model", model, "word", "word") == (0, 2, "")


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize(
    "model",
    [
        "word",
        "model.safetensors",
        "my model.safetensors",
        "here/my model",
        "../my model",
        "not here/my model",
        "../models/no.safetensors",
    ],
)
def test_a_model_that_is_mistyped_is_no_text(embed: Any, model: str) -> None:
    Path("here").mkdir()
    code, embeddings, error = embed(model, "some text")
    assert (code, embeddings) == (1, 0)
    assert re.search(rf"embgemma: {model}: (cannot open the file: No such|there is no such) file", error)
    assert ("text, name a model before it: --model embgemma-tiny" in error) == (model != "../models/no.safetensors")


@pytest.mark.parametrize("name", ["my texts.txt", "rows.jsonl"])
def test_a_file_of_texts_is_no_model(embed: Any, name: str) -> None:
    Path(name).write_text("the of\n")
    for arguments in ((name,), (name, "some text")):
        code, embeddings, error = embed(*arguments)
        assert (code, embeddings) == (2, 0)
        assert error == f"embgemma: {name} is no model; to embed its lines, use --input {shlex.quote(name)}\n"


@pytest.mark.parametrize("command", ["embed", "info"])
def test_an_empty_name_is_no_model(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, ""]) == 2
    assert "is empty; expected the name of a file or a folder" in capsys.readouterr().err
    with pytest.raises(embgemma.InputError, match="path is empty"):
        embgemma.load("")


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "m.safetensors", "--input", ""],
        ["embed", "m.safetensors", "some text", "-o", ""],
        ["convert", "m", "-o", "x.safetensors", "--keep-texts", ""],
        ["convert", "m", "-o", "x.safetensors", "--keep-texts", "a.txt", ""],
        ["index", "a.txt", "-o", ""],
        ["search", "", "query"],
        ["serve", "--index", ""],
    ],
)
def test_an_empty_name_is_no_file(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("the of")
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith("is empty; expected the name of a file or a folder\n")


@pytest.mark.usefixtures("box")
def test_what_lies_there_wins_over_names(model_path: Path) -> None:
    here = Path.cwd()
    (here / "owner").mkdir()
    for name in ("embgemma-tiny", "owner/name"):
        shutil.copy(model_path, here / name)
        assert embgemma.load(name, backend="reference").path.absolute() == here / name
    with pytest.raises(
        embgemma.ModelFileError, match=r"no such file in the folder owner; .*`embgemma pull owner/other`"
    ):
        embgemma.load("owner/other")


def test_an_empty_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with pytest.raises(
        embgemma.ModelFileError, match="came without the model in the box; give the path of a model file"
    ):
        embgemma.load()
    assert main(["embed", "some text"]) == 1
    assert "came without the model in the box" in capsys.readouterr().err


@pytest.mark.parametrize("option", [{"scheme": "int8"}, {"revision": "v2"}])
def test_what_is_for_names_alone(box: Path, option: dict[str, Any]) -> None:
    for name in (box, "embgemma-tiny"):
        with pytest.raises(embgemma.InputError, match="has no meaning for a model file; leave it out"):
            embgemma.load(name, **option)
